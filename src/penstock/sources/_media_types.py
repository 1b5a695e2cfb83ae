"""The media type of a file, by its name: a table, so that it is the same on every machine."""

from __future__ import annotations

_EXTENSIONS = {
    "text/markdown": "md markdown mdown mkd mdx qmd rmd",
    "text/x-rst": "rst rest",
    "text/html": "html htm xhtml",
    "text/x-tex": "tex latex sty cls bib",
    "text/x-org": "org",
    "text/asciidoc": "adoc asciidoc",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/css": "css scss sass less",
    "text/javascript": "js mjs cjs jsx",
    "text/x-typescript": "ts mts cts tsx",
    "text/x-python": "py pyi pyw pyx",
    "text/x-c": "c h",
    "text/x-c++": "cc cpp cxx hh hpp hxx cu cuh ino",
    "text/x-csharp": "cs",
    "text/x-java": "java",
    "text/x-kotlin": "kt kts",
    "text/x-scala": "scala sc",
    "text/x-go": "go",
    "text/x-rust": "rs",
    "text/x-swift": "swift",
    "text/x-objc": "m mm",
    "text/x-ruby": "rb rake gemspec",
    "text/x-php": "php",
    "text/x-perl": "pl pm",
    "text/x-lua": "lua",
    "text/x-r": "r",
    "text/x-julia": "jl",
    "text/x-haskell": "hs",
    "text/x-elixir": "ex exs",
    "text/x-erlang": "erl hrl",
    "text/x-clojure": "clj cljs cljc edn",
    "text/x-lisp": "lisp el scm",
    "text/x-ocaml": "ml mli",
    "text/x-sql": "sql",
    "text/x-shellscript": "sh bash zsh fish ksh",
    "text/x-powershell": "ps1 psm1",
    "text/x-protobuf": "proto",
    "text/x-cmake": "cmake",
    "text/x-makefile": "mk mak",
    "text/x-diff": "diff patch",
    "application/json": "json jsonl ndjson geojson webmanifest",
    "application/x-ipynb+json": "ipynb",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/xml": "xml xsd xsl xslt svg rss atom plist",
}
_NAMES = {
    "makefile": "text/x-makefile",
    "gnumakefile": "text/x-makefile",
    "cmakelists.txt": "text/x-cmake",
    "dockerfile": "text/x-dockerfile",
    "containerfile": "text/x-dockerfile",
    "rakefile": "text/x-ruby",
    "gemfile": "text/x-ruby",
}
_BY_EXTENSION = {ext: kind for kind, exts in _EXTENSIONS.items() for ext in exts.split()}


def extension_of(name: str) -> str:
    """What follows the last dot, in lower case; empty for `.profile` and `Makefile`."""
    stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and stem else ""


def media_type_of(name: str) -> str:
    """The media type of a file of that name; `text/plain` if its extension is not known."""
    return _NAMES.get(name.lower()) or _BY_EXTENSION.get(extension_of(name), "text/plain")

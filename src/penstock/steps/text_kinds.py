"""From a media type to the kind of text that decides where it breaks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.kernels import U8

_MARKDOWN = "markdown gfm commonmark"
_RST = "rst restructuredtext prs.fallenstein.rst"
_PYTHON = "python python3 python-code cython pyi script.python"
_HTML = "html xhtml xhtml+xml xml svg+xml"
_DATA = (
    "json jsonl ndjson json5 geojson csv tsv tab-separated-values comma-separated-values yaml toml"
    " ini properties sqlite3 po gettext-translation calendar vcard"
)
_CODE = (
    "c csrc chdr h c++ cpp c++src c++hdr c-header csharp cs java java-source kotlin scala groovy"
    " javascript js ecmascript typescript ts tsx jsx vue svelte go golang rust rustsrc rs ruby"
    " ruby-script perl php httpd-php sh shellscript shell bash zsh csh fish powershell ps1 sql lua"
    " swift objc objectivec objective-c objcsrc objective-c++ r rsrc julia dart haskell elixir"
    " erlang clojure fsharp ocaml pascal fortran vb vbscript basic visual-basic makefile cmake"
    " dockerfile protobuf thrift graphql terraform hcl nix zig assembly asm css scss sass less"
    " verilog systemverilog vhdl cuda cuda-src opencl glsl hlsl script source-code"
)


def kinds_of(media_type: pa.Array) -> U8:
    """The kind of each text, as `kernels.breaks` numbers them; (num_rows,) uint8.

    What is unknown is plain text, which breaks at lines and sentences.
    """
    encoded = media_type.cast(pa.string()).fill_null("").dictionary_encode()
    kinds = np.array([_kind(name) for name in encoded.dictionary.to_pylist()] or [0], np.uint8)
    of_each: U8 = kinds[encoded.indices.to_numpy()]
    return of_each


def _kind(media_type: str) -> int:
    from penstock.kernels import breaks

    main, _, name = media_type.split(";")[0].strip().lower().partition("/")
    name = name.removeprefix("x-").removeprefix("vnd.")
    names = {
        breaks.MARKDOWN: _MARKDOWN,
        breaks.RST: _RST,
        breaks.PYTHON: _PYTHON,
        breaks.CODE: _CODE,
        breaks.HTML: _HTML,
        breaks.DATA: _DATA,
    }
    for kind, known in names.items():
        if name in known.split():
            return kind
    if name.endswith(("+json", "-json", "+yaml", "+zip")):
        return breaks.DATA
    if name.endswith("+xml"):
        return breaks.HTML
    if main == "text" and name.endswith(("src", "source", "hdr")):
        return breaks.CODE
    return breaks.PLAIN

"""Patterns as `.gitignore` files have them, compiled for one question per file.

A pattern is translated to a regular expression for the entry itself; that a
folder's verdict holds for what is below it is the business of the caller, who
prunes. So the last pattern that matches decides, as in Git. Most patterns are
plain names or endings (`build/`, `*.pyc`): those are looked up before any
regular expression runs.

Source: Git's `dir.c` and `wildmatch.c`, as documented in gitignore(5); the
    tests compare with `git check-ignore`. Differs: patterns match characters,
    not bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_NEVER = "(?!)"
_SPECIAL = re.compile(r"[*?\[\\]")
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    matches: Callable[[str], object]
    by_name: bool
    folders_only: bool
    verdict: bool


@dataclass(frozen=True, slots=True)
class _Probe:
    """Whether any rule may match: cheap, and right to say no."""

    names: frozenset[str]
    endings: tuple[str, ...]
    name: Callable[[str], object] | None
    path: Callable[[str], object] | None

    def __call__(self, path: str, name: str) -> bool:
        return (
            name in self.names
            or name.endswith(self.endings)
            or (self.name is not None and self.name(name) is not None)
            or (self.path is not None and self.path(path) is not None)
        )


class Patterns:
    """An ordered list of patterns; the last one that matches an entry decides.

    Attributes:
        empty: True if there is no pattern in it.
    """

    __slots__ = ("_file_probe", "_folder_probe", "_rules", "empty")

    def __init__(self, lines: Iterable[str]) -> None:
        parsed = [rule for line in lines if (rule := _parse(line)) is not None]
        self.empty = not parsed
        self._rules = tuple(
            _Rule(re.compile(regex, re.DOTALL).fullmatch, by_name, folders_only, verdict)
            for _, regex, by_name, folders_only, verdict in reversed(parsed)
        )
        self._folder_probe = _probe([(p, regex, name) for p, regex, name, _, _ in parsed])
        self._file_probe = _probe([(p, r, name) for p, r, name, folder, _ in parsed if not folder])

    def verdict(self, path: str, name: str, is_folder: bool) -> bool | None:
        """True if matched, False if matched by a `!` pattern, None if no pattern matches.

        Args:
            path: The entry relative to where the patterns are anchored, with `/`.
            name: Its last component.
            is_folder: Whether patterns that end in `/` apply.
        """
        probe = self._folder_probe if is_folder else self._file_probe
        if not probe(path, name):
            return None
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.matches(
                name if rule.by_name else path
            ):
                return rule.verdict
        return None


def ignore_lines(data: bytes) -> list[str]:
    """The lines of a `.gitignore` file."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def path_regex(pattern: str) -> str:
    """The regular expression of a pattern over a whole path: `*` stays inside one folder."""
    return _translate(pattern, in_path=True)


def _parse(line: str) -> tuple[str, str, bool, bool, bool] | None:
    """(pattern, regex, by name, folders only, verdict) of one line; None for a comment."""
    if line.startswith("#"):
        return None
    line = _strip_trailing_spaces(line)
    verdict = not line.startswith("!")
    if not verdict:
        line = line[1:]
    if not line:
        return None
    folders_only = line.endswith("/")
    if folders_only:
        line = line[:-1]
    by_name = "/" not in line
    regex = _translate(line.removeprefix("/"), in_path=not by_name)
    return line, regex, by_name, folders_only, verdict


def _strip_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    escapes = len(kept) - len(kept.rstrip("\\"))
    return kept + " " if escapes % 2 and kept != line else kept


def _probe(patterns: list[tuple[str, str, bool]]) -> _Probe:
    names, endings, others, paths = set(), [], [], []
    for pattern, regex, by_name in patterns:
        if not by_name:
            paths.append(regex)
        elif not _SPECIAL.search(pattern):
            names.add(pattern)
        elif pattern.startswith("*") and not _SPECIAL.search(pattern[1:]):
            endings.append(pattern[1:])
        else:
            others.append(regex)
    return _Probe(frozenset(names), tuple(endings), _any_of(others), _any_of(paths))


def _any_of(regexes: list[str]) -> Callable[[str], object] | None:
    if not regexes:
        return None
    return re.compile("|".join(f"(?:{regex})" for regex in regexes), re.DOTALL).fullmatch


def _translate(pattern: str, *, in_path: bool) -> str:
    first = _SPECIAL.search(pattern)
    # Git compares what is before the first special character by itself, so
    # stars right after it count as standing at the start of a pattern.
    literal = first.start() if first else len(pattern)
    out = [re.escape(pattern[:literal])]
    at = literal
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            regex, at = _stars(pattern, at, literal, in_path)
        elif char == "?":
            regex, at = "[^/]" if in_path else ".", at + 1
        elif char == "[":
            regex, at = _bracket(pattern, at)
        elif char == "\\":
            # A backslash at the end escapes nothing and never matches.
            regex = re.escape(pattern[at + 1]) if at + 1 < len(pattern) else _NEVER
            at += 2
        else:
            regex, at = re.escape(char), at + 1
        out.append(regex)
    return "".join(out)


def _stars(pattern: str, at: int, literal: int, in_path: bool) -> tuple[str, int]:
    end = at
    while end < len(pattern) and pattern[end] == "*":
        end += 1
    if not in_path:
        return ".*", end
    opens = at in (0, literal) or pattern[at - 1] == "/"
    if end - at < 2 or not opens or (end < len(pattern) and pattern[end] != "/"):
        return "[^/]*", end
    if end == len(pattern):
        return ".*", end
    return "(?:.*/)?", end + 1


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Translate `[...]`; an unclosed one or an unknown class never matches."""
    never = _NEVER, len(pattern)
    at += 1
    negated = pattern[at : at + 1] in ("!", "^") and at < len(pattern)
    at += negated
    parts: list[str] = []
    previous = ""
    first = True
    while True:
        char = pattern[at : at + 1]
        if not char:
            return never
        if char == "]" and not first:
            break
        first = False
        following = pattern[at + 1 : at + 2]
        if char == "\\":
            if not following:
                return never
            at, char = at + 1, following
        elif char == "-" and previous and following not in ("", "]"):
            at += 1
            if following == "\\":
                at += 1
                following = pattern[at : at + 1]
                if not following:
                    return never
            if previous <= following:
                parts.append(f"{re.escape(previous)}-{re.escape(following)}")
            char = ""
        elif char == "[" and following == ":":
            close = pattern.find("]", at + 2)
            if close < 0:
                return never
            if close > at + 2 and pattern[close - 1] == ":":
                named = _CLASSES.get(pattern[at + 2 : close - 1])
                if named is None:
                    return never
                parts.append(named)
                at, char = close, ""
        if char:
            parts.append(_in_class(char))
        previous = char
        at += 1
    body = "".join(parts)
    if not body:
        return ("[^/]" if negated else _NEVER), at + 1
    return f"(?!/)[{'^' if negated else ''}{body}]", at + 1


def _in_class(char: str) -> str:
    return re.escape(char) if char.isalnum() else f"\\{char}" if char.isascii() else char

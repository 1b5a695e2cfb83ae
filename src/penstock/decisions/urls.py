"""Drop documents by the URL that their metadata names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as setting  # a setting of ours is called field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions._judging import Check, verdicts
from penstock.decisions._metadata import check_field, field_values
from penstock.errors import ConfigError

_DECIDES = {"fingerprint": False}
_NO_WORD = re.compile(r"[^a-z0-9]+")
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//")
_LISTS = ("blocked_domains", "blocked_urls", "blocked_words", "soft_words", "blocked_substrings")

Entries = str | Path | Iterable[str]
"""A file with an entry a line (lines that begin with ``#`` do not count), or the entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlFilter:
    """Drop documents whose URL is of a blocked domain or has blocked words.

    A `Path` names a file with an entry a line, read when the filter is made; a
    string alone is an error, as it may be either. Case does not count anywhere.
    A document without a URL stays.

    Source: Penedo et al. 2023 (RefinedWeb), appendix G.1, as datatrove's
        `URLFilter`. Differs: lists are yours, none comes along; a domain blocks all
        that ends in it, without a list of public suffixes; URLs are compared
        without scheme, user, default port, fragment and slash at the end.

    Cost: 4 us a document for the signature, 2 us a list to decide.
    """

    field: str = "url"
    """The metadata's field that holds the URL."""
    blocked_domains: Entries = setting(default=(), metadata=_DECIDES)
    """Domains; each blocks its subdomains too: ``example.com`` blocks ``www.example.com``."""
    blocked_urls: Entries = setting(default=(), metadata=_DECIDES)
    """Whole URLs."""
    blocked_words: Entries = setting(default=(), metadata=_DECIDES)
    """Words, as anything but ASCII letters and digits separates them, of which one is too many."""
    soft_words: Entries = setting(default=(), metadata=_DECIDES)
    """Words of which `max_soft_words` may be in a URL."""
    max_soft_words: int = setting(default=1, metadata=_DECIDES)
    """Most different soft words that a URL may have."""
    blocked_substrings: Entries = setting(default=(), metadata=_DECIDES)
    """Texts that are looked for in the URL's letters and digits joined."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_field("UrlFilter.field", self.field)
        for name in _LISTS:
            entries = _entries(f"UrlFilter.{name}", getattr(self, name))
            object.__setattr__(self, name, _normalised(name, entries))
        if not any(getattr(self, name) for name in _LISTS):
            raise ConfigError("UrlFilter", "no list", f"must have entries in one of {_LISTS}")
        most = self.max_soft_words
        if not isinstance(most, int) or isinstance(most, bool) or most < 0:
            raise ConfigError("UrlFilter.max_soft_words", most, "must be a whole number from 0 on")

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "url_filter"

    @property
    def signature_type(self) -> pa.DataType:
        """A string, null where there is no URL."""
        return pa.large_string()

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Host, path and query of each URL, in lower case; (num_rows,) strings."""
        values = field_values(documents["metadata"], self.field)
        urls = [None if value is None else normalise(value) for value in values]
        return pa.array(urls, pa.large_string())

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents are blocked; `VERDICTS`, sorted by `doc_id`.

        The rule's second part is ``domain``, ``url``, ``word``, ``soft_words`` or
        ``substring``; the score is how many entries of that list were found.
        """
        urls = signature.to_pylist()
        checks: list[Check] = []
        for reason, most, count in self._counters():
            counts = np.array([count(url) if url else 0 for url in urls], np.float64)
            checks.append((reason, counts > most, counts))
        return verdicts(self.rule, doc_id, checks)

    def _counters(self) -> list[tuple[str, int, Callable[[str], int]]]:
        """For each list that has entries: reason, most that may be found, and how to count."""
        domains, urls, words, soft, parts = (frozenset(getattr(self, n)) for n in _LISTS)
        pattern = re.compile("|".join(map(re.escape, sorted(parts, key=lambda p: (-len(p), p)))))
        counters: list[tuple[str, int, Callable[[str], int], frozenset[str]]] = [
            ("domain", 0, lambda url: len(domains.intersection(_domains(url))), domains),
            ("url", 0, lambda url: url in urls, urls),
            ("word", 0, lambda url: len(words.intersection(_NO_WORD.split(url))), words),
            (
                "soft_words",
                self.max_soft_words,
                lambda url: len(soft.intersection(_NO_WORD.split(url))),
                soft,
            ),
            ("substring", 0, lambda url: len(set(pattern.findall(_joined(url)))), parts),
        ]
        return [counter[:3] for counter in counters if counter[3]]


def normalise(url: str) -> str:
    """Host, path and query in lower case; without user, default port, fragment and last slash."""
    rest = _SCHEME.sub("", url.strip().lower()).partition("#")[0]
    cut = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    host, path = rest[:cut].rpartition("@")[2], rest[cut:]
    host = re.sub(r":(?:80|443)?$", "", host)
    if not host.isascii():
        host = _encoded(host)
    name, colon, port = host.partition(":")
    return name.rstrip(".") + colon + port + path.rstrip("/")


def _encoded(host: str) -> str:
    """The host as names are looked up: ``xn--`` and ASCII letters."""
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _domains(url: str) -> list[str]:
    """The host and every domain that it is in."""
    labels = re.split(r"[/?:]", url, maxsplit=1)[0].split(".")
    return [".".join(labels[first:]) for first in range(len(labels))]


def _joined(url: str) -> str:
    return _NO_WORD.sub("", url)


def _entries(setting: str, given: Entries) -> list[str]:
    if isinstance(given, str):
        problem = "must be a Path or several strings: Path(...) for a file, [...] for one entry"
        raise ConfigError(setting, given, problem)
    if isinstance(given, Path):
        try:
            lines = given.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(setting, given, f"cannot be read ({err})") from err
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(setting, given, "has no entry")
        return found
    try:
        found = list(given)
    except TypeError as err:
        raise ConfigError(setting, given, "must be a Path or strings") from err
    for entry in found:
        if not isinstance(entry, str) or not entry.strip():
            raise ConfigError(setting, entry, "must be a string that is not empty")
    return found


def _normalised(name: str, entries: list[str]) -> tuple[str, ...]:
    """The entries in the form in which URLs are looked at, sorted, each once."""
    found = set()
    for entry in entries:
        if name == "blocked_domains":
            value = normalise(entry.strip().lower().removeprefix("*.").strip("."))
            is_good = value and not re.search(r"[/?\s]", value)
        elif name == "blocked_urls":
            value = normalise(entry)
            is_good = bool(value)
        else:
            value = entry.strip().lower()
            value = _joined(value) if name == "blocked_substrings" else value
            is_good = value and not _NO_WORD.search(value)
        if not is_good:
            problem = {
                "blocked_domains": "must be a domain such as example.com",
                "blocked_urls": "must be a URL",
            }.get(name, "must be of ASCII letters and digits: URLs are cut at everything else")
            raise ConfigError(f"UrlFilter.{name}", entry, problem)
        found.add(value)
    return tuple(sorted(found))

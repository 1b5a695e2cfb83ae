"""Shards of text, read as tokens: each unit is tokenized once a node and kept in its cache.

8 bytes   how many rows
int64     where each row's tokens begin, (rows + 1,)
tokens    one after another
32 bytes  SHA-256 of all that
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.errors import ConfigError, ShardError
from penstock.loader.cache import Fetched, NodeCache
from penstock.loader.formats.units import Kind, Opened, Reader, Unit
from penstock.loader.formats.values import U8, Values, mapped
from penstock.loader.places import Folder, Place
from penstock.steps.tokenize import DocumentTokenizer, Tokenize

COLUMN = "tokens"

_NAMES_OF_TEXT = ("text", "txt", "content")
_TEXTS_AT_ONCE = 1024


def text_column(columns: dict[str, Kind], wanted: str | None) -> str:
    """Which column has the text.

    Raises:
        ConfigError: It is not there, or not plain which it is.
    """
    texts = [name for name, kind in columns.items() if kind == "text"]
    if wanted is None:
        named = [name for name in _NAMES_OF_TEXT if name in texts]
        if not named and len(texts) != 1:
            known = ", ".join(texts) or "none"
            raise ConfigError("text", None, f"must name the column of text; there are {known}")
        return (named or texts)[0]
    if wanted not in texts:
        known = ", ".join(texts) or "none"
        raise ConfigError("text", wanted, f"must name a column of text; there are {known}")
    return wanted


@dataclass(frozen=True, slots=True)
class _Tokenized:
    """A unit whose column `tokens` is made of its text."""

    opened: Opened
    tokens: Values
    fetched: Fetched

    @property
    def memory_bytes(self) -> int:
        return self.opened.memory_bytes

    def values(self, column: str) -> Values:
        return self.tokens if column == COLUMN else self.opened.values(column)

    def table(self, columns: Sequence[str]) -> pa.Table:
        found = [self.tokens.lists() if name == COLUMN else None for name in columns]
        rest = self.opened.table([name for name in columns if name != COLUMN])
        arrays = [
            rest[name] if each is None else each for name, each in zip(columns, found, strict=True)
        ]
        return pa.table(arrays, names=list(columns))


@dataclass(frozen=True)
class TokenizingReader:
    """A reader of shards of text, with a column `tokens` besides.

    Attributes:
        place: Where the shards lie.
        reader: Who reads them.
        column: Their column of text.
        step: What makes tokens.
        cache: Where these are kept.
    """

    place: Place
    reader: Reader
    column: str
    step: Tokenize
    cache: NodeCache = field(compare=False)

    @cached_property
    def _tokenizer(self) -> DocumentTokenizer:
        return self.step.open()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_tokenizer"}

    def units(self) -> list[Unit]:
        """Those of the reader below."""
        return self.reader.units()

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """Those of the reader below, and the tokens."""
        return {**self.reader.columns(unit), COLUMN: "numbers"}

    def open(self, unit: Unit) -> _Tokenized:
        """Bring a unit at hand, with its tokens."""
        opened = self.reader.open(unit)

        def make(path: Path) -> None:
            path.write_bytes(self._made(opened.values(self.column)))

        fetched = self.cache.get(self._key(unit), _check, make)
        data = mapped(fetched.path)
        rows = int(data[:8].view("<i8")[0])
        offsets = data[8 : 16 + 8 * rows].view("<i8").astype(np.int64)
        dtype = self._tokenizer.dtype
        starts = 16 + 8 * rows + offsets[:-1] * dtype.itemsize
        return _Tokenized(
            opened, Values(data, starts, np.diff(offsets) * dtype.itemsize, dtype), fetched
        )

    def _made(self, values: Values) -> bytes:
        text = values.text()
        pieces, lengths = [], [np.zeros(1, np.int64)]
        for first in range(0, len(text), _TEXTS_AT_ONCE):
            tokens, offsets = self._tokenizer.encode(text.slice(first, _TEXTS_AT_ONCE))
            pieces.append(tokens.tobytes())
            lengths.append(np.diff(offsets))
        offsets = np.cumsum(np.concatenate(lengths))
        data = b"".join([np.int64(len(text)).tobytes(), offsets.astype("<i8").tobytes(), *pieces])
        return data + hashlib.sha256(data).digest()

    def _key(self, unit: Unit) -> str:
        file = unit.file
        facts = [self.place.url, file.name, file.num_bytes, sorted(file.hashes.items())]
        if not file.hashes and isinstance(self.place, Folder):
            facts.append(os.stat(self.place.path / file.name).st_mtime_ns)
        facts += [unit.first_row, self.column, self.step.fingerprint()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _check(path: Path) -> None:
    """Raise `ShardError` unless a file of tokens is whole."""
    try:
        data: U8 = mapped(path)
    except OSError as err:
        raise ShardError(path.name, 0, f"expected tokens, but {err}") from err
    content, digest = data[:-32], data[-32:]
    if len(data) < 48 or hashlib.sha256(content.data).digest() != digest.tobytes():
        raise ShardError(path.name, 0, "expected tokens, found something else")

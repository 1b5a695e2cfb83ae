"""Evaluation sets that a corpus must not contain: files of items, some columns of which count."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from penstock.errors import ConfigError, SourceError

_ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet")
_PACKED = (".gz", ".zst")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class EvalSet:
    """An evaluation set: a file with an item per row, and the columns whose text matters.

    The text of an item is that of its columns, in their order, on lines of their
    own, so that runs of words go on from a question into its answer.

    Attributes:
        path: JSON lines (`.jsonl`, `.ndjson`), JSON (`.json`: a list of objects, or an
            object that holds one such list) or Parquet; JSON may be packed by `.gz` or
            `.zst`. A local path or a URL that fsspec opens.
        columns: Names, with dots into objects (`question.stem`) and through lists
            (`choices.text`). A list of texts counts with all it has.
        name: What verdicts call it; None: the file's name without endings.

    Raises:
        ConfigError: A setting is not as said above.
    """

    path: str | os.PathLike[str]
    columns: Sequence[str]
    name: str | None = None

    def __post_init__(self) -> None:
        path = os.fspath(self.path) if isinstance(self.path, (str, os.PathLike)) else None
        if not isinstance(path, str) or not _ending(path):
            problem = f"must be a file that ends in one of {', '.join(_ENDINGS)}, {_PACKED} besides"
            raise ConfigError("EvalSet.path", self.path, problem)
        columns = self.columns
        if (
            not isinstance(columns, (tuple, list))
            or not columns
            or not all(isinstance(name, str) and name for name in columns)
        ):
            raise ConfigError(
                "EvalSet.columns", columns, "must be names of columns, such as ('question',)"
            )
        if self.name is not None and not (isinstance(self.name, str) and self.name.strip()):
            raise ConfigError("EvalSet.name", self.name, "must be a name, or None")
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "columns", tuple(columns))

    @property
    def place(self) -> str:
        """The path as text."""
        return os.fspath(self.path)

    @property
    def title(self) -> str:
        """What verdicts call it."""
        if self.name is not None:
            return self.name
        file = Path(self.path).name
        for ending in (*_PACKED, *_ENDINGS):
            file = file.removesuffix(ending)
        return file

    def read(self) -> list[str]:
        """The text of every item, in the order of the file; empty where it has none.

        Raises:
            SourceError: The file cannot be read, has no items, lacks a column, or has
                no text in the columns.
        """
        rows = _rows(self.place, self.columns)
        if not rows:
            raise SourceError(self.place, "has no items; give a file that holds the set")
        texts, has = [], dict.fromkeys(self.columns, False)
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise SourceError(self.place, f"item {number} is not an object, but {_kind(row)}")
            parts: list[str] = []
            for column in self.columns:
                values = list(self._values(row, column))
                has[column] = has[column] or bool(values)
                parts += [text for text in values if text]
            # JSON may escape half a character, which no other text can hold.
            texts.append("\n".join(parts).encode("utf-8", "replace").decode("utf-8"))
        missing = [column for column in self.columns if not has[column]]
        if missing:
            known = ", ".join(list(rows[0])[:_SHOWN])
            problem = f"no item has anything in a column {missing[0]!r}; the first one has {known}"
            raise SourceError(self.place, problem)
        if not any(text.strip() for text in texts):
            raise SourceError(
                self.place, f"no item has text in {', '.join(self.columns)}; choose other columns"
            )
        return texts

    def _values(self, value: Any, column: str) -> Iterator[str]:
        """The texts that a column holds in a row or a part of one."""
        if isinstance(value, list):
            for part in value:
                yield from self._values(part, column)
        elif not column:
            if isinstance(value, dict):
                raise SourceError(
                    self.place,
                    "a column holds an object; name a column inside it, such as "
                    f"'column.{next(iter(value), 'name')}'",
                )
            if value is not None:
                yield value if isinstance(value, str) else str(value)
        elif isinstance(value, dict):
            if column in value:
                yield from self._values(value[column], "")
                return
            head, _, rest = column.partition(".")
            if rest and head in value:
                yield from self._values(value[head], rest)


def digest(texts: list[str]) -> str:
    """32 hex digits that change when an item's text does."""
    found = hashlib.sha256()
    for text in texts:
        data = text.encode()
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()[:32]


def _ending(path: str) -> str:
    """The ending that names the format, or nothing."""
    name = path
    for packed in _PACKED:
        name = name.removesuffix(packed)
    ending = next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")
    return "" if ending == ".parquet" and name != path else ending


def _rows(path: str, columns: Sequence[str]) -> list[Any]:
    """The items of a file as JSON has them."""
    try:
        with _opened(path) as file:
            if _ending(path) == ".parquet":
                return _from_parquet(file, path, columns)
            data = _unpacked(file.read(), path)
        text = data.decode("utf-8-sig")
    except SourceError:
        raise
    except FileNotFoundError as err:
        raise SourceError(path, "does not exist; give the path of an evaluation set") from err
    except Exception as err:  # what a damaged file raises depends on its format
        problem = f"cannot be read as {_ending(path)}: {err or type(err).__name__}"
        raise SourceError(path, problem) from err
    return _from_lines(text, path) if _ending(path) != ".json" else _from_json(text, path)


def _from_parquet(file: BinaryIO, path: str, columns: Sequence[str]) -> list[Any]:
    """The rows, with no columns but those in use."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    known = table.schema_arrow.names
    for column in columns:
        if column not in known and column.partition(".")[0] not in known:
            raise SourceError(path, f"has no column {column!r}, but {', '.join(known[:_SHOWN])}")
    used = [name for name in known if any((c + ".").startswith(name + ".") for c in columns)]
    rows: list[Any] = table.read(columns=used).to_pylist()
    return rows


def _opened(path: str) -> BinaryIO:
    if "://" not in path:
        return Path(path).open("rb")
    import fsspec

    file: BinaryIO = fsspec.open(path, "rb").open()
    return file


def _unpacked(data: bytes, path: str) -> bytes:
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".zst"):
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(data), read_across_frames=True
        ) as reader:
            return reader.read()
    return data


def _from_lines(text: str, path: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as err:
                raise SourceError(path, f"line {number} is not JSON: {err}") from err
    return rows


def _from_json(text: str, path: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as err:
        if "Extra data" in str(err):  # lines of JSON under the name of one
            return _from_lines(text, path)
        raise SourceError(path, f"is not JSON: {err}") from err
    if isinstance(value, dict):
        lists = {
            key: part
            for key, part in value.items()
            if isinstance(part, list) and part and isinstance(part[0], dict)
        }
        if len(lists) != 1:
            found = ", ".join(lists) or "none"
            problem = f"must be a list of objects or hold one such list; it holds: {found}"
            raise SourceError(path, problem)
        (value,) = lists.values()
    if not isinstance(value, list):
        raise SourceError(path, f"must be a list of objects; it is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return {list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")

"""JSON Lines: a document a line, plain or compressed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.records import Failure, Listing, Read
from penstock.sources._blocks import Block, Damaged, blocks
from penstock.sources._columns import Columns, checked_columns, checked_media_type
from penstock.sources._json_lines import parse_block
from penstock.sources._place import Place, checked_path, list_items, locate
from penstock.sources._trouble import Trouble, from_os_error

_ENDINGS = tuple(
    f".{name}{packed}"
    for name in ("jsonl", "ndjson", "json")
    for packed in ("", ".gz", ".zst")
    if name + packed != "json"  # one JSON value is not JSON Lines
)


@dataclass(frozen=True, slots=True)
class LinesTask:
    """Lines of a file, to be parsed.

    Attributes:
        item: The file.
        data: Whole lines.
        first_line: Number of the first, from 1.
        failures: What went wrong before they could be parsed.
        finished: The file and its version, once its last line is here.
    """

    item: str
    data: bytes
    first_line: int
    failures: tuple[Failure, ...] = ()
    finished: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """JSON Lines files; made by `jsonl`, which says what the settings mean."""

    path: str
    id: str | None = "_id"
    title: str | None = "title"
    text: str = "text"
    metadata: tuple[str, ...] | None = None
    media_type: str = "text/plain"

    def __post_init__(self) -> None:
        checked_path("jsonl.path", self.path)
        checked_columns("jsonl", self.id, self.title, self.text, self.metadata)
        checked_media_type("jsonl", self.media_type)

    def list(self) -> Listing:
        """Every file.

        Raises:
            SourceError: The path does not exist, or the glob matches nothing.
        """
        return list_items(self.path, endings=_ENDINGS)

    def tasks(self, items: Sequence[str]) -> Iterator[LinesTask]:
        """Blocks of about 1 MB, read and decompressed here, parsed by the readers."""
        place = locate(self.path).place
        for item, (_, version) in zip(items, place.stat_items(items), strict=True):
            yield from _file_tasks(place, item, version)

    def read(self, task: LinesTask) -> Read:
        """The lines' rows; a line that is not as it should be becomes a failure."""
        columns = Columns(self.id, self.title, self.text, self.metadata)
        rows, failures = parse_block(
            task.item, task.data, task.first_line, columns, self.media_type
        )
        return Read(rows, failures + task.failures, task.finished)


def jsonl(
    path: str | os.PathLike[str],
    *,
    id: str | None = "_id",  # noqa: A002 - the column's usual name
    title: str | None = "title",
    text: str = "text",
    metadata: Sequence[str] | None = None,
    media_type: str = "text/plain",
) -> JsonLines:
    """A document for each line of JSON Lines files; the defaults are BEIR's layout.

    Compression (gzip, Zstandard) is recognised by a file's first bytes. The
    document's text is the title, an empty line and the text.

    Args:
        path: A file, a folder (all `.jsonl`, `.ndjson` below it, and these or
            `.json` with `.gz` or `.zst`), a glob or a URL.
        id: Column of the `doc_id`, any scalar; None names a row by its file and
            line (`a.jsonl:12`).
        title: Column of the title, which a row may lack; None if there is none.
        text: Column of the text.
        metadata: Columns to keep as metadata; None keeps all others and the
            title, under `title`. A null is as if the column were absent.
        media_type: Media type of every document.

    Raises:
        ConfigError: A setting is not of the form above.
    """
    columns = checked_columns("jsonl", id, title, text, metadata)
    return JsonLines(
        path=checked_path("jsonl.path", path),
        id=id,
        title=title,
        text=text,
        metadata=columns.metadata,
        media_type=media_type,
    )


def _file_tasks(place: Place, item: str, known: str) -> Iterator[LinesTask]:
    try:
        file, version = place.open(item, known)
    except Trouble as trouble:
        done = () if trouble.version is None else ((item, trouble.version),)
        yield LinesTask(item, b"", 1, (trouble.failure(item),), done)
        return
    with file:
        for block in blocks(file, item):
            if block.first_line == 1 and block.data.startswith((b"\xff\xfe", b"\xfe\xff")):
                failures: tuple[Failure, ...] = (_UTF16.failure(item),)
                yield LinesTask(item, b"", 1, failures, ((item, version),))
                return
            failures = ()
            data = block.data
            if block.damage is not None:
                data = _undamaged(data)
                failures = (_damage(block).failure(item),)
            done = ((item, version),) if block.last else ()
            yield LinesTask(item, data, block.first_line, failures, done)


_UTF16 = Trouble(
    "broken-encoding",
    "expected JSON Lines in UTF-8, found UTF-16",
    "Convert the file: iconv -f utf-16 -t utf-8.",
)


def _undamaged(data: bytes) -> bytes:
    """The lines that are whole: the last one counts if it is JSON as it stands."""
    cut = data.rfind(b"\n") + 1
    try:
        json.loads(data[cut:])
    except (ValueError, RecursionError):
        return data[:cut]
    return data


def _damage(block: Block) -> Trouble:
    line = block.first_line + _undamaged(block.data).count(b"\n")
    if isinstance(block.damage, Damaged):
        return Trouble(
            "truncated",
            f"expected a whole compressed file, but {block.damage}; "
            f"the lines before line {line} were kept",
            "Fetch or write the file again.",
        )
    error = (
        block.damage
        if isinstance(block.damage, OSError)
        else OSError(f"{type(block.damage).__name__}: {block.damage}")
    )
    return from_os_error(error)

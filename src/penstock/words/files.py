"""The files of a segment's words: plain `.npy` arrays, written as streams and mapped to read.

terms.npy     (num_bytes,) uint8: the bytes of all terms, sorted, end to end
offsets.npy   (2, num_terms + 1) uint32, or uint64 beyond 4 GiB: where each term starts in
              `terms`, and the byte where its record starts in `postings`
postings.npy  (num_words,) uint32: records, see `penstock.kernels.postings`, and padding
    lengths.npy   (3, num_rows) uint16, or int32 if need be: per row its length, and its words in
                  the title and in the heading
words.json    sizes, checksums, and what the analysis was
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from penstock.arrays import map_array
from penstock.errors import FormatError, StoreError

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

FORMAT = 1
PADDING_BYTES = 2048
"""Zeros after the last record: kernels read ahead of what they need."""

FILES = ("lengths.npy", "offsets.npy", "postings.npy", "terms.npy", "words.json")

_REBUILD = "rebuild the index: penstock index rebuild"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Words:
    """The words of one segment, mapped into memory and immutable.

    Attributes:
        folder: Where its files are.
        language: Of the analysis, see `WordsSettings`.
        analysis: Names what texts became, see `analysis_version`.
        num_rows: Rows, those of no word too.
        num_terms: Distinct terms.
        num_bytes: Of all its files.
        terms: See the head of `penstock.words.files`, as for the next four.
        term_offsets: Row 0 of `offsets`.
        record_offsets: Row 1 of `offsets`.
        postings: Records.
        lengths: Of rows.
    """

    folder: Path
    language: str
    analysis: str
    num_rows: int
    num_terms: int
    num_bytes: int
    terms: U8
    term_offsets: U32
    record_offsets: U32
    postings: U32
    lengths: npt.NDArray[Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a folder that `WordsWriter` or `merge_words` has written.

        Sizes are compared with what was written, contents are not: see `check`.

        Raises:
            StoreError: A file is missing, short or damaged; names the file.
            FormatError: A newer Penstock wrote it.
        """
        folder = Path(folder)
        about = _about(folder / "words.json")
        arrays = {}
        try:
            if about["format"] > FORMAT:
                raise FormatError(
                    str(folder / "words.json"),
                    f"its format is {about['format']} and this Penstock reads up to {FORMAT};"
                    " upgrade Penstock",
                )
            for name in FILES[:-1]:
                expected = about["files"][name]
                arrays[name] = _map(folder / name, expected["bytes"])
            offsets, lengths = arrays["offsets.npy"], arrays["lengths.npy"]
            shapes = (2, about["num_terms"] + 1), (3, about["num_rows"])
            ends = int(offsets[0, -1]), int(offsets[1, -1]) + PADDING_BYTES
            sizes = arrays["terms.npy"].nbytes, arrays["postings.npy"].nbytes
            if (offsets.shape, lengths.shape) != shapes or ends[0] != sizes[0]:
                raise StoreError(str(folder / "offsets.npy"), f"it is damaged; {_REBUILD}")
            if not ends[1] <= sizes[1] < ends[1] + 4:
                raise StoreError(str(folder / "postings.npy"), f"it is damaged; {_REBUILD}")
            return cls(
                folder,
                about["language"],
                about["analysis"],
                about["num_rows"],
                about["num_terms"],
                sum(file["bytes"] for file in about["files"].values()),
                arrays["terms.npy"],
                offsets[0],
                offsets[1],
                arrays["postings.npy"],
                lengths,
            )
        except (KeyError, TypeError, IndexError) as err:
            raise StoreError(str(folder / "words.json"), f"it is damaged; {_REBUILD}") from err

    def check(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            StoreError: A file is not as it was written; names the file.
        """
        about = _about(self.folder / "words.json")
        for name in FILES[:-1]:
            expected = about["files"][name]
            array = _map(self.folder / name, expected["bytes"])
            if zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data) != expected["crc32"]:
                raise damaged(self.folder / name)


def damaged(path: Path) -> StoreError:
    """The error of a file whose contents cannot be right."""
    return StoreError(str(path), f"it is damaged, its contents make no sense; {_REBUILD}")


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
    except OSError as err:
        raise _unreadable(path, err) from err
    except ValueError as err:
        raise StoreError(str(path), f"it is damaged ({err}); {_REBUILD}") from err
    if not isinstance(about, dict):
        raise StoreError(str(path), f"it is damaged, expected an object; {_REBUILD}")
    return about


def _map(path: Path, num_bytes: int) -> npt.NDArray[Any]:
    try:
        found = path.stat().st_size
        if found != num_bytes:
            raise StoreError(str(path), f"expected {num_bytes} bytes, found {found}; {_REBUILD}")
        return map_array(path)
    except OSError as err:
        raise _unreadable(path, err) from err
    except ValueError as err:
        raise StoreError(str(path), f"it is damaged ({err}); {_REBUILD}") from err


def _unreadable(path: Path, err: OSError) -> StoreError:
    what = (
        "the file is missing" if isinstance(err, FileNotFoundError) else f"cannot be read ({err})"
    )
    return StoreError(str(path), f"{what}; {_REBUILD}")


class ArrayFile:
    """A `.npy` file that is written piece by piece.

    Attributes:
        path: The file.
        crc32: Of the bytes written so far.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.crc32 = path, 0
        self._dtype, self._size = np.dtype(dtype), 0
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close
        self._file.write(self._header(()))

    def write(self, data: npt.NDArray[Any]) -> None:
        """Append the bytes of an array."""
        if data.size:
            piece = np.ascontiguousarray(data).view(np.uint8).reshape(-1).data
            self._file.write(piece)
            self.crc32 = zlib.crc32(piece, self.crc32)
            self._size += len(piece)

    def close(self, *leading: int) -> dict[str, int]:
        """Write the header, which says how much there is.

        Args:
            *leading: The shape but for its last dimension.

        Returns:
            What `words.json` says of the file.
        """
        header = self._header(leading)
        self._file.seek(0)
        self._file.write(header)
        self._file.close()
        return {"bytes": len(header) + self._size, "crc32": self.crc32}

    def _header(self, leading: tuple[int, ...]) -> bytes:
        """Of 128 bytes, which is what fits any shape here."""
        last = self._size // self._dtype.itemsize // max(1, math.prod(leading))
        shape = f"({''.join(f'{n}, ' for n in leading)}{last},)"
        about = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00\x76\x00" + f"{about:<117}\n".encode()


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write `words.json`, the last of a segment's files."""
    path.write_text(json.dumps({"format": FORMAT, **about}, indent=1) + "\n", encoding="utf-8")

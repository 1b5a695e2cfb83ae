"""The words of a batch, cut once for all the filters that count them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.kernels import I64, U8, text_buffers

Rules = Literal["english", "unicode"]
"""How text is cut into words: as spaCy's English tokenizer does, or by Unicode's classes alone."""

_EXCEPTIONS = Path(__file__).with_name("english_words.txt")
_CHARACTERS = Path(__file__).with_name("text_characters.npy")
_MAX_KEPT_BYTES = 64 << 20

_kept = threading.local()


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts; what each array holds is said at `kernels.segmenting.cut_words`."""

    rows: I64
    starts: I64
    sizes: npt.NDArray[np.int32]
    chars: npt.NDArray[np.int32]
    some: npt.NDArray[np.uint32]
    every: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint64]


def check_rules(setting: str, rules: str) -> None:
    """Raise `ConfigError` unless these are rules for words that we have."""
    if rules not in get_args(Rules):
        raise ConfigError(setting, rules, f"must be one of {', '.join(get_args(Rules))}")


def cut(text: pa.Array, rules: Rules, *, keep: bool = True) -> tuple[I64, U8, Words]:
    """The buffers of a text column and its words.

    The words of the last batch are kept per thread: filters that follow each
    other look at the same one. A batch is known by its buffers, which are held
    meanwhile, so that no other can come to lie there.

    Args:
        text: (num_rows,) strings.
        rules: How words are cut.
        keep: Whether another filter may ask for the same.
    """
    from penstock.kernels.segmenting import ENGLISH, UNICODE, cut_words

    offsets, utf8 = text_buffers(text)
    key = (offsets.ctypes.data, utf8.ctypes.data, len(offsets), rules)
    last = getattr(_kept, "last", None)
    if last is not None and last[0] == key:
        return offsets, utf8, last[1]
    rule = ENGLISH if rules == "english" else UNICODE
    words = Words(*cut_words(offsets, utf8, *tables(), rule))
    if not keep:
        return offsets, utf8, words
    num_bytes = sum(getattr(words, name).nbytes for name in Words.__slots__)
    _kept.last = (key, words, offsets, utf8) if num_bytes <= _MAX_KEPT_BYTES else None
    return offsets, utf8, words


def flags() -> npt.NDArray[np.uint32]:
    """The classes of every character, (0x110000,)."""
    table: npt.NDArray[np.uint32] = tables()[0]
    return table


@lru_cache(maxsize=1)
def tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64], I64]:
    """What `kernels.segmenting` reads: the characters' classes, and the exceptions and units."""
    from penstock.kernels.segmenting import JOINS, MERGES, UNIT

    packed = np.load(_CHARACTERS)
    counts = np.diff((packed >> np.uint64(32)).astype(np.int64), append=0x110000)
    classes = np.repeat((packed & np.uint64(0xFFFFFFFF)).astype(np.uint32), counts)
    lines = _EXCEPTIONS.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("# ")]
    strings = [unit.encode() for unit in lines[0].split(" ")]
    codes = [UNIT] * len(strings)
    for line in lines[1:]:
        words, _, num_pieces = line.partition("\t")
        ends = np.cumsum([len(word.encode()) for word in words.split(" ")]).tolist()
        strings.append(words.replace(" ", "").encode())
        codes.append(sum(end << 8 * place for place, end in enumerate(ends)))
        if num_pieces:
            codes[-1] |= int(num_pieces) << MERGES
            classes[ord(words[0])] |= JOINS
    return classes, *table_of(strings, codes)


def table_of(strings: list[bytes], values: list[int]) -> tuple[npt.NDArray[np.uint64], I64]:
    """A hash table from these strings to values, for kernels."""
    from penstock.kernels.segmenting import fill_table

    num_slots = 1 << max(4, (4 * len(strings)).bit_length())
    keys, codes = np.zeros(num_slots, np.uint64), np.zeros(num_slots, np.int64)
    data = np.frombuffer(b"".join(strings) + b"\0", np.uint8)
    ends = np.cumsum([len(text) for text in strings], dtype=np.int64)
    fill_table(keys, codes, data, ends, np.array(values, np.int64))
    return keys, codes


def hashes_of(strings: list[str]) -> npt.NDArray[np.uint64]:
    """The hashes that `kernels.segmenting` gives to these words."""
    from penstock.kernels.segmenting import hash_bytes

    data = [np.frombuffer(text.encode(), np.uint8) for text in strings]
    return np.array([hash_bytes(part, 0, len(part)) for part in data], np.uint64)


@lru_cache(maxsize=1)
def powers() -> npt.NDArray[np.uint64]:
    """Powers of the base of the hashes, for runs of words up to a few kilobytes."""
    from penstock.kernels.repetition import fill_powers

    table = np.zeros(4096, np.uint64)
    fill_powers(table)
    return table


def forget() -> None:
    """Drop the kept words of this thread, as benchmarks must."""
    _kept.last = None

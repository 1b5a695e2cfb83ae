"""The index of evaluation sets, handed out only when it finds what is planted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from penstock.decisions.eval_sets import EvalSet, digest
from penstock.decisions.overlap import Index, build, cut, matched_runs
from penstock.decisions.overlap_evidence import word_spans
from penstock.errors import ConfigError, PenstockError, SourceError
from penstock.kernels import I64

_PLANTED_PER_SET = 100
_FILLER = "zqv wxk jqz vvx kzq"
_BREAKS = (" ", "\n", ", ", "  -- ", "\r\n\r\n", "\t", '." ', " * ")
_building = threading.Lock()


@lru_cache(maxsize=8)
def _tested_index(
    sets: tuple[EvalSet, ...], digests: tuple[str, ...], size: int, least: int
) -> Index:
    texts_of = []
    for one, known in zip(sets, digests, strict=True):
        texts = one.read()
        if digest(texts) != known:
            raise SourceError(one.place, "has changed since Decontaminate was made; make it anew")
        texts_of.append(texts)
    index = build(texts_of, size, least)
    for place, one in enumerate(sets):
        lengths = index.lengths[index.sets == place]
        if not (lengths >= least).any():
            problem = f"has items of {lengths.max(initial=0)} words at most; lower min_words"
            raise ConfigError("Decontaminate.against", one.place, problem)
    self_test(index, sets)
    return index


def index_of(sets: tuple[EvalSet, ...], digests: tuple[str, ...], size: int, least: int) -> Index:
    """The index of these sets, made and tested once per process.

    Raises:
        SourceError: A set has changed, or cannot be read.
        ConfigError: A set has no item of `least` words.
        PenstockError: The self-test failed.
    """
    with _building:
        return _tested_index(sets, digests, size, least)


def self_test(index: Index, sets: Sequence[EvalSet]) -> None:
    """Plant items of every set in other words, and find each of them whole.

    Raises:
        PenstockError: One was not found, or something was where nothing is.
    """
    index.planted.clear()
    for place, one in enumerate(sets):
        able = np.flatnonzero((index.sets == place) & (index.lengths >= index.least))
        chosen = able[np.linspace(0, len(able) - 1, min(len(able), _PLANTED_PER_SET)).astype(int)]
        texts = [planted(index.texts[item]) for item in chosen.tolist()]
        missed = len(chosen) - _num_found(index, texts, chosen)
        if missed:
            raise PenstockError(
                f"Decontaminate's self-test planted {len(chosen)} items of {one.title!r} and "
                f"missed {missed}: a text of {one.place} is not what it seems, or this is a bug; "
                "please report it."
            )
        index.planted.append(len(chosen))
    if len(matched_runs(index, pa.array([_FILLER * 3], pa.large_string()))[0]):
        raise PenstockError("Decontaminate's self-test found an item where there is none.")


def _num_found(index: Index, texts: list[str], chosen: I64) -> int:
    """How many of the texts hold their item from the first word to the last."""
    rows, keys, _ = matched_runs(index, pa.array(texts, pa.large_string()))
    both = np.unique(rows * len(index.keys) + keys)
    rows, keys = np.divmod(both, len(index.keys))
    ends = np.searchsorted(rows, np.arange(len(texts) + 1)).astype(np.int32)
    signature = pa.ListArray.from_arrays(pa.array(ends), pa.array(index.keys[keys]))
    found = index.cover(signature, np.zeros(len(index.keys), np.bool_), -1.0)
    is_it = found.items == chosen[found.documents]
    return int((found.covered == index.lengths[found.items])[is_it].sum())


def planted(text: str) -> str:
    """A document that holds the words of a text, with other case and other marks between them."""
    data = text.encode()
    num_words = len(cut(pa.array([text], pa.large_string()))[1])
    spans = word_spans(data, range(num_words))
    parts = [_FILLER]
    for number, (start, end) in enumerate(spans):
        word = data[start:end].decode()
        parts.append(_BREAKS[number % len(_BREAKS)])
        parts.append(_swapped(word) if number % 3 else word)
    return "".join([*parts, "\n", _FILLER])


def _swapped(word: str) -> str:
    """The word with its ASCII letters in the other case."""
    return "".join(char.swapcase() if char.isascii() else char for char in word)

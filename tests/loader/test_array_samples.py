from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import ConfigError
from penstock.loader import ArraySamples, Samples

TOKENS = np.arange(10, dtype=np.uint16)


def test_an_array_is_samples_in_memory_or_mapped_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", TOKENS)
    np.save(tmp_path / "offsets.npy", np.array([0, 3, 3, 10]))
    mapped = ArraySamples(
        np.load(tmp_path / "tokens.npy", mmap_mode="r"),
        np.load(tmp_path / "offsets.npy", mmap_mode="r"),
    )
    for samples in (mapped, ArraySamples(TOKENS, np.array([0, 3, 3, 10], np.uint32))):
        tokens, offsets = samples.gather(np.array([2, 0, 1, 0]))

        assert isinstance(samples, Samples)
        assert tokens.tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 0, 1, 2]
        assert offsets.tolist() == [0, 7, 10, 10, 13]
        assert samples.lengths(0, 3).tolist() == [3, 0, 7]
        assert samples.lengths(1, 2).tolist() == [0]
        assert samples.doc_ids(np.array([2, 0])).to_pylist() == ["2", "0"]
        assert samples.fingerprint == mapped.fingerprint


def test_pieces_are_gathered_alone() -> None:
    samples = ArraySamples(TOKENS, np.array([0, 3, 10]))
    pieces = samples.gather(np.array([1, 1]), np.array([5, 0]), np.array([2, 1], np.int32))

    assert [column.tolist() for column in pieces] == [[8, 9, 3], [0, 2, 3]]


@pytest.mark.parametrize(
    ("position", "start", "length"),
    [(2, 0, 0), (-1, 0, 0), (0, 0, 4), (0, 3, 1), (0, -1, 1), (1, 0, -1)],
)
def test_a_piece_outside_its_sample_is_an_error(position: int, start: int, length: int) -> None:
    samples = ArraySamples(TOKENS, np.array([0, 3, 10]))

    with pytest.raises(IndexError):
        samples.gather(np.array([position]), np.array([start]), np.array([length], np.int32))


def test_fingerprints_tell_tokens_and_borders_apart() -> None:
    variants = [
        ArraySamples(TOKENS, np.array([0, 3, 10])),
        ArraySamples(TOKENS, np.array([0, 4, 10])),
        ArraySamples(TOKENS[::-1].copy(), np.array([0, 3, 10])),
        ArraySamples(TOKENS.astype(np.uint32), np.array([0, 3, 10])),
    ]

    assert len({samples.fingerprint for samples in variants}) == 4
    copy = pickle.loads(pickle.dumps(variants[0]))
    assert copy.fingerprint == variants[0].fingerprint


@pytest.mark.parametrize(
    ("tokens", "offsets"),
    [
        pytest.param(TOKENS.astype(np.int64), [0, 10], id="wide-tokens"),
        pytest.param(TOKENS.reshape(2, 5), [0, 10], id="two-axes"),
        pytest.param(TOKENS, [0.0, 10.0], id="fractions"),
        pytest.param(TOKENS, [], id="no-end"),
        pytest.param(TOKENS, [0, 11], id="beyond-the-end"),
        pytest.param(TOKENS, [-1, 5], id="before-the-start"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tokens: Any, offsets: Any) -> None:
    with pytest.raises(ConfigError, match="ArraySamples"):
        ArraySamples(tokens, np.array(offsets))


def test_falling_offsets_are_refused_where_they_are_met() -> None:
    samples = ArraySamples(TOKENS, np.array([0, 5, 3, 10]))

    with pytest.raises(ConfigError, match="falling at 1"):
        samples.lengths(0, 3)

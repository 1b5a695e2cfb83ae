"""`Store.loader`: slices, what cannot be served, and one order whatever the store's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tokens.tokenizers_json import END, byte_tokenizer

import penstock as ps
from penstock.errors import ConfigError, QueryError, StoreError


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Sixty notes of different lengths."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"Note {number}. " * (number % 7 + 1))
    return folder


def _flow(folder: Path) -> ps.Flow:
    tokenize = ps.Tokenize(tokenizer=byte_tokenizer(), end_of_document=END)
    return ps.Flow(source=ps.files(folder), steps=[tokenize])


def _rows(loader: Any) -> list[list[int]]:
    return [row.tolist() for batch in loader for row in batch["tokens"]]


def test_an_epoch_serves_every_token_once(notes: Path, tmp_path: Path) -> None:
    _flow(notes).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    loader = store.loader(seq_len=128, global_batch_size=4, seed=3, doc_ids=True)
    batches = list(loader)

    served = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert served == store.tokens().num_tokens
    assert loader.audit().digest == loader.audit().total
    named = {name for batch in batches for name in batch["doc_ids"] if name}
    assert named == {path.name for path in notes.iterdir()}


def test_an_updated_store_serves_what_a_fresh_one_does(notes: Path, tmp_path: Path) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    for number in range(5):
        (notes / f"{number}.txt").write_text(f"Changed {number}. " * 9)
    (notes / "7.txt").unlink()
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    ways: list[dict[str, Any]] = [
        {"seq_len": 100, "global_batch_size": 3},
        {"max_tokens": 500, "block_size": 4, "blocks_per_window": 3},
    ]
    for settings in ways:
        one, other = (
            ps.Store.open(tmp_path / name).loader(**settings, seed=5) for name in ("store", "fresh")
        )
        assert len(ps.Store.open(tmp_path / "store").tokens().manifest.segments) == 2
        assert one.state_dict() == other.state_dict()
        assert _rows(one) == _rows(other)


def test_a_slice_serves_its_documents_only(notes: Path, tmp_path: Path) -> None:
    _flow(notes).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    batches = list(store.loader(global_batch_size=8, where="num_bytes < 20", doc_ids=True))

    named = {name for batch in batches for name in batch["doc_ids"] if name}
    assert named == {path.name for path in notes.iterdir() if path.stat().st_size < 20}


def test_an_empty_slice_a_wrong_tokenizer_and_no_tokens_are_told_before_training(
    notes: Path, tmp_path: Path
) -> None:
    _flow(notes).run(tmp_path / "store")
    ps.Flow(source=ps.files(notes), steps=[]).run(tmp_path / "bare")
    store = ps.Store.open(tmp_path / "store")

    with pytest.raises(QueryError, match="no kept document satisfies it"):
        store.loader(seq_len=8, global_batch_size=1, where="num_bytes > 10000")
    with pytest.raises(ConfigError, match="not the one that made the store's tokens"):
        store.loader(seq_len=8, global_batch_size=1, tokenizer=byte_tokenizer(extra=1))
    with pytest.raises(StoreError, match="no tokens"):
        ps.Store.open(tmp_path / "bare").loader(seq_len=8, global_batch_size=1)
    with pytest.raises(ConfigError, match="rank"):
        store.loader(seq_len=8, global_batch_size=4, rank=4, world_size=4)
    assert len(store.loader(seq_len=8, global_batch_size=4, tokenizer=byte_tokenizer())) > 0


def test_a_state_of_one_store_holds_for_an_equal_one_and_no_other(
    notes: Path, tmp_path: Path
) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "copy")
    (notes / "1.txt").write_text("Another text.")
    flow.run(tmp_path / "other")
    make: dict[str, Any] = {"seq_len": 64, "global_batch_size": 4}
    loader = ps.Store.open(tmp_path / "store").loader(**make)
    rest = iter(loader)
    for _ in range(3):
        next(rest)
    state = loader.state_dict()

    copy = ps.Store.open(tmp_path / "copy").loader(**make)
    copy.load_state_dict(state)

    np.testing.assert_array_equal(_rows(copy), [row.tolist() for b in rest for row in b["tokens"]])
    with pytest.raises(ConfigError, match="samples"):
        ps.Store.open(tmp_path / "other").loader(**make).load_state_dict(state)

"""Tokens in runs: made once, taken out, named in the counts, and the same as from scratch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tokens.tokenizers_json import END, byte_tokenizer

import penstock as ps
from penstock.build import tokens as tokens_phase
from penstock.errors import ConfigError, ModelError, QueryError, StoreError

Check = Callable[[ps.Flow, Path], None]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Forty notes of different lengths."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"Note {number}. " * (number % 7 + 1))
    return folder


def _flow(folder: Path, *before: Any, after: tuple[Any, ...] = (), **settings: Any) -> ps.Flow:
    tokenize = ps.Tokenize(**{"tokenizer": byte_tokenizer(), **settings})
    return ps.Flow(source=ps.files(folder), steps=[*before, tokenize, *after])


def test_the_first_run_tokenizes_what_is_kept(notes: Path, tmp_path: Path) -> None:
    (notes / "copy.txt").write_bytes((notes / "3.txt").read_bytes())

    report = _flow(notes, ps.ExactDedup()).run(tmp_path / "store")

    tokens = ps.Store.open(tmp_path / "store").tokens()
    sizes = sum(len((notes / f"{number}.txt").read_bytes()) for number in range(40))
    assert report.counts.documents_tokenized == tokens.num_samples == 40
    assert report.tokens == tokens.num_tokens == sizes
    assert tokens.dtype == "uint16"


def test_a_document_decodes_to_its_text_with_the_tokens_around_it(
    notes: Path, tmp_path: Path
) -> None:
    _flow(notes, end_of_document=END).run(tmp_path / "store")

    tokens = ps.Store.open(tmp_path / "store").tokens()
    name = tokens.doc_ids([7])[0].as_py()
    assert tokens.decode(tokens.gather([7])[0]) == (notes / name).read_text() + END


def test_many_tokens_need_wider_numbers(notes: Path, tmp_path: Path) -> None:
    _flow(notes, tokenizer=byte_tokenizer(extra=65_600), end_of_document=END).run(tmp_path / "s")

    tokens = ps.Store.open(tmp_path / "s").tokens()
    assert tokens.dtype == "uint32"
    assert tokens.decode(tokens.gather([0])[0]).endswith(END)


def test_only_new_texts_are_tokenized(notes: Path, tmp_path: Path, equals_fresh: Check) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    (notes / "1.txt").write_text("Another text.")
    (notes / "new.txt").write_text("A new text.")
    (notes / "2.txt").unlink()
    (notes / "5.txt").rename(notes / "renamed.txt")

    counts = flow.run(tmp_path / "store").counts

    assert (counts.documents_tokenized, counts.tokens_reused, counts.tokens_removed) == (2, 1, 3)
    equals_fresh(flow, tmp_path / "store")


def test_a_run_without_changes_writes_no_token_file(notes: Path, tmp_path: Path) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    (notes / "1.txt").write_text("Another text.")
    flow.run(tmp_path / "store")
    before = sorted((tmp_path / "store/tokens").rglob("*"))

    (notes / "1.txt").touch()
    report = flow.run(tmp_path / "store")

    assert sorted((tmp_path / "store/tokens").rglob("*")) == before
    assert report.counts.documents_tokenized == 0


def test_a_document_that_comes_back_is_not_tokenized_again(
    notes: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    (notes / "1.txt").rename(tmp_path / "away.txt")
    flow.run(tmp_path / "store")
    (tmp_path / "away.txt").rename(notes / "1.txt")

    counts = flow.run(tmp_path / "store").counts

    assert counts.documents_tokenized == 0
    equals_fresh(flow, tmp_path / "store")


def test_many_small_runs_keep_few_segments(
    notes: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    for number in range(12):
        (notes / f"{number}.txt").write_text(f"Text {number} of a later run.")
        flow.run(tmp_path / "store")

    manifest = ps.Store.open(tmp_path / "store").tokens().manifest
    assert 1 < len(manifest.segments) < 5
    equals_fresh(flow, tmp_path / "store")


@pytest.mark.parametrize(
    ("changed", "tokenized"),
    [
        pytest.param({"tokenizer": byte_tokenizer(extra=1)}, 40, id="tokenizer"),
        pytest.param({"end_of_document": END}, 40, id="setting"),
        pytest.param({}, 0, id="nothing"),
    ],
)
def test_another_tokenizer_makes_all_tokens_anew(
    changed: dict[str, Any], tokenized: int, notes: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    _flow(notes).run(tmp_path / "store")

    report = _flow(notes, **changed).run(tmp_path / "store")

    assert report.counts.documents_tokenized == tokenized
    equals_fresh(_flow(notes, **changed), tmp_path / "store")
    assert len(ps.Store.open(tmp_path / "store", run=1).tokens().gather([0])[0])


def test_the_tokenizer_may_be_a_file_or_its_content(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    inline = ps.Tokenize(tokenizer=byte_tokenizer())

    for source in (tmp_path / "tokenizer.json", tmp_path, str(tmp_path)):
        assert ps.Tokenize(tokenizer=source).fingerprint() == inline.fingerprint()
    assert len(repr(inline)) < 200


def test_documents_of_no_text_are_samples_of_no_tokens(notes: Path, tmp_path: Path) -> None:
    flow = _flow(notes, ps.Map(lambda doc: {"text": "" if "Note 7." in doc["text"] else "full"}))
    flow.run(tmp_path / "store")

    (notes / "more.txt").write_text("Note 7. More.")
    counts = flow.run(tmp_path / "store").counts

    tokens = ps.Store.open(tmp_path / "store").tokens()
    assert (counts.documents_tokenized, counts.tokens_reused) == (0, 1)
    assert 0 in tokens.lengths(0, tokens.num_samples)


def test_a_slice_is_of_the_documents_that_satisfy_a_condition(notes: Path, tmp_path: Path) -> None:
    _flow(notes).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    some = store.tokens(where="num_bytes < 20")

    expected = {p.name for p in notes.iterdir() if p.stat().st_size < 20}
    assert set(some.doc_ids(range(some.num_samples)).to_pylist()) == expected
    with pytest.raises(QueryError, match="no kept document"):
        store.tokens(where="num_bytes < 0")


def test_a_store_without_tokens_says_what_to_add(notes: Path, tmp_path: Path) -> None:
    ps.Flow(source=ps.files(notes), steps=[]).run(tmp_path / "store")

    with pytest.raises(StoreError, match=r"no tokens; add ps\.Tokenize"):
        ps.Store.open(tmp_path / "store").tokens()


def test_tokens_go_when_the_flow_makes_none(notes: Path, tmp_path: Path) -> None:
    _flow(notes).run(tmp_path / "store")
    ps.Flow(source=ps.files(notes), steps=[]).run(tmp_path / "store")

    assert ps.Store.open(tmp_path / "store").manifest.tokens is None
    report = _flow(notes).run(tmp_path / "store")
    assert report.counts.documents_tokenized == report.kept == 40


@pytest.mark.parametrize("flushed", [1, 64 << 20], ids=["many-segments", "one-segment"])
def test_work_saved_at_a_checkpoint_is_not_done_again(
    flushed: int, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, equals_fresh: Check
) -> None:
    monkeypatch.setattr(tokens_phase, "_WINDOW_BYTES", 100)
    monkeypatch.setattr(tokens_phase, "_FLUSH_BYTES", flushed)
    with monkeypatch.context() as patch:
        patch.setattr(tokens_phase, "CHECKPOINT_S", 0.0)
        _stop_after(patch, 3)
        with pytest.raises(_PowerCutError):
            _flow(notes).run(tmp_path / "store")

    counts = _flow(notes).run(tmp_path / "store").counts

    assert 0 < counts.documents_tokenized < 40
    equals_fresh(_flow(notes), tmp_path / "store")
    named = set(ps.Store.open(tmp_path / "store").tokens().manifest.names())
    assert {path.name for path in (tmp_path / "store/tokens").iterdir()} == named


class _PowerCutError(Exception):
    pass


def _stop_after(patch: pytest.MonkeyPatch, batches: int) -> None:
    real, seen = tokens_phase.Tokens.add, iter(range(1000))

    def add(self: Any, rows: Any) -> None:
        if next(seen) == batches:
            raise _PowerCutError
        real(self, rows)

    patch.setattr(tokens_phase.Tokens, "add", add)


def test_ctrl_c_keeps_what_was_tokenized(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, equals_fresh: Check
) -> None:
    monkeypatch.setattr(tokens_phase, "_WINDOW_BYTES", 100)
    real, seen = tokens_phase.Tokens.add, []

    def add(self: Any, rows: Any) -> None:
        real(self, rows)
        seen.append(rows.num_rows)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(tokens_phase.Tokens, "add", add)
        with pytest.raises(KeyboardInterrupt):
            _flow(notes).run(tmp_path / "store")
    counts = _flow(notes).run(tmp_path / "store").counts

    assert counts.documents_tokenized == 40 - sum(seen)
    equals_fresh(_flow(notes), tmp_path / "store")


def test_a_damaged_segment_is_made_anew(notes: Path, tmp_path: Path, equals_fresh: Check) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    next((tmp_path / "store/tokens").glob("segment-*/hashes.npy")).write_bytes(b"")
    (notes / "1.txt").write_text("Another text.")

    report = flow.run(tmp_path / "store")

    assert report.counts.documents_tokenized == 40
    equals_fresh(flow, tmp_path / "store")


CHUNK = ps.Chunk(max_tokens=8, overlap_tokens=0)
TOKENIZE = ps.Tokenize(tokenizer=byte_tokenizer())
EMBED = ps.Embed()


@pytest.mark.parametrize(
    "steps",
    [[TOKENIZE], [TOKENIZE, CHUNK, EMBED], [CHUNK, TOKENIZE, EMBED], [CHUNK, EMBED, TOKENIZE]],
    ids=["alone", "first", "between", "last"],
)
def test_tokenize_stands_on_either_side_of_chunks(steps: list[Any], notes: Path) -> None:
    plan = ps.Flow(source=ps.files(notes), steps=[ps.Normalize(), *steps]).plan()

    assert plan.tokenize is TOKENIZE
    assert [type(step) for step in plan.chain] == [ps.Normalize]


@pytest.mark.parametrize(
    "steps",
    [[TOKENIZE, ps.Normalize()], [TOKENIZE, TOKENIZE], [TOKENIZE, ps.ExactDedup(), CHUNK]],
    ids=["before-a-step", "twice", "before-a-decision"],
)
def test_tokenize_comes_last_and_once(steps: list[Any], notes: Path) -> None:
    with pytest.raises(ConfigError, match="must come last and once"):
        ps.Flow(source=ps.files(notes), steps=steps)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        pytest.param({"tokenizer": ""}, ConfigError, "must name a tokenizer", id="empty"),
        pytest.param({"tokenizer": "no.json"}, ModelError, "check the path", id="no-file"),
        pytest.param({"end_of_document": "<none>"}, ConfigError, "vocabulary", id="no-such-token"),
    ],
)
def test_a_bad_setting_is_an_error_at_construction(
    settings: dict[str, Any], error: type[Exception], told: str, notes: Path
) -> None:
    with pytest.raises(error, match=told):
        _flow(notes, **settings)


def test_what_is_no_tokenizer_is_an_error(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a tokenizer"):
        _flow(notes, tokenizer="{}").run(tmp_path / "store")


def test_a_forgotten_document_is_not_served_any_more(notes: Path, tmp_path: Path) -> None:
    flow = _flow(notes)
    flow.run(tmp_path / "store")
    (notes / "new.txt").write_text("A new one.")
    flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    before = store.tokens()

    store.forget(["7.txt", "new.txt"])

    now = ps.Store.open(tmp_path / "store").tokens()
    names = before.doc_ids(range(41)).to_pylist()
    assert now.doc_ids(range(39)).to_pylist() == [n for n in names if n not in ("7.txt", "new.txt")]
    assert now.fingerprint != before.fingerprint
    assert ps.Store.open(tmp_path / "store").manifest.counts["tokens"] == now.num_tokens
    assert flow.run(tmp_path / "store").counts.documents_tokenized == 0
    assert ps.Store.open(tmp_path / "store").tokens().fingerprint == now.fingerprint


def test_no_trace_of_a_forgotten_document_is_left_after_gc(notes: Path, tmp_path: Path) -> None:
    (notes / "a-secret-name.txt").write_text("Nobody is to know this.")
    _flow(notes).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    tokens = store.tokens()
    place = tokens.doc_ids(range(41)).to_pylist().index("a-secret-name.txt")
    traces = (b"a-secret-name", tokens.gather([place])[0][10:20].tobytes())
    assert all(_in_files(tmp_path / "store/tokens", trace) for trace in traces)

    store.forget(["a-secret-name.txt"])
    ps.Store.open(tmp_path / "store").gc()

    assert not any(_in_files(tmp_path / "store/tokens", trace) for trace in traces)
    assert ps.Store.open(tmp_path / "store").tokens().num_samples == 40


def _in_files(folder: Path, trace: bytes) -> bool:
    return any(trace in path.read_bytes() for path in folder.rglob("*") if path.is_file())

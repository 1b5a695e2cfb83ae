"""`penstock tokenizer` and `penstock loader`: what they print, and that it is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tokens.tokenizers_json import END, byte_tokenizer
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app
from penstock.errors import StoreError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Eighty notes and their tokens, one a byte."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(80):
        (folder / f"{number}.txt").write_text(f"The note of number {number}. " * (number % 9 + 1))
    tokenize = ps.Tokenize(tokenizer=byte_tokenizer(), end_of_document=END)
    ps.Flow(source=ps.files(folder), steps=[tokenize]).run(tmp_path / "store")
    return tmp_path / "store"


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_trained_tokenizer_makes_tokens_and_is_the_same_each_time(
    store: Path, tmp_path: Path
) -> None:
    told = _run("tokenizer", "train", store, "--vocab-size", 300)
    facts = json.loads(
        _run("tokenizer", "train", store, "--vocab-size", 300, "--output", tmp_path / "t", "--json")
    )

    assert (store / "tokenizer.json").read_bytes() == (tmp_path / "t").read_bytes()
    assert "300 tokens" in told
    assert f"{facts['bytes_per_token']:.2f} bytes a token" in told
    assert facts["documents"] == 80
    step = ps.Tokenize(tokenizer=store / "tokenizer.json", end_of_document=facts["end"])
    ps.Flow(source=ps.files(tmp_path / "notes"), steps=[step]).run(store)
    tokens = ps.Store.open(store).tokens()
    sizes = sum(path.stat().st_size for path in (tmp_path / "notes").iterdir())
    assert tokens.num_tokens < sizes / 2
    assert tokens.decode(tokens.gather([3])[0]).startswith("The note of number")


def test_rebuilding_makes_the_same_tokens(store: Path) -> None:
    before = ps.Store.open(store).tokens()
    damaged = next((store / "tokens").glob("segment-*/tokens.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-4])
    with pytest.raises(StoreError, match="penstock tokenizer rebuild"):
        ps.Store.open(store).tokens()

    assert "80 documents" in _run("tokenizer", "rebuild", store)

    after = ps.Store.open(store).tokens()
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.lengths(0, 80), before.lengths(0, 80))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"seq-len": 256, "global-batch-size": 4}, id="packed"),
        pytest.param({"global-batch-size": 6}, id="samples"),
        pytest.param({"max-tokens": 900}, id="budget"),
        pytest.param({"max-tokens": 900, "seq-len": 100}, id="budget-of-pieces"),
        pytest.param({"global-batch-size": 7, "last-step": "drop"}, id="last-dropped"),
    ],
)
def test_the_plan_tells_what_the_loader_then_does(options: dict[str, Any], store: Path) -> None:
    words = [word for name, value in options.items() for word in (f"--{name}", value)]

    plan = json.loads(_run("loader", "plan", store, *words, "--json"))

    settings = {name.replace("-", "_"): value for name, value in options.items()}
    batches = list(ps.Store.open(store).loader(**settings))
    served = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert plan["steps"] == len(batches)
    assert plan["slots"] == sum(batch["tokens"].size for batch in batches)
    if settings.get("last_step") != "drop":
        assert plan["tokens"] == served
        assert plan["label_tokens"] == sum(batch["num_label_tokens"] for batch in batches)
        assert plan["padding"] == plan["slots"] - served
    assert plan["samples"] == 80
    assert abs(plan["rank_correlation"]) < 2 * plan["full_shuffle"]
    assert f"{plan['steps']:,} on every rank" in _run("loader", "plan", store, *words)


def test_a_window_of_everything_has_to_hold_everything(store: Path) -> None:
    words = ["--global-batch-size", 4, "--block-size", 80]

    whole = json.loads(_run("loader", "plan", store, *words, "--json"))
    assert whole["window_bytes"] == whole["bytes_read"]


def test_batches_are_shown_decoded(store: Path) -> None:
    words = ["--seq-len", 300, "--global-batch-size", 2]

    lines = _run("loader", "show", store, *words, "-n", 2, "--json").splitlines()

    batch = next(iter(ps.Store.open(store).loader(seq_len=300, global_batch_size=2)))
    shown = json.loads(lines[0])
    assert len(lines) == 2
    assert shown["num_label_tokens"] == batch["num_label_tokens"]
    text = (store.parent / "notes" / shown["rows"][0][0]["doc_id"]).read_text()
    assert shown["rows"][0][0]["text"] == text + END
    assert [part["start"] for part in shown["rows"][0]] == sorted(
        np.flatnonzero(batch["position_ids"][0] == 0)[: len(shown["rows"][0])].tolist()
    )
    assert "The note of number" in _run("loader", "show", store, *words)


def test_a_slice_of_nothing_is_one_error(store: Path) -> None:
    arguments = ["loader", "plan", str(store), "--max-tokens", "99", "--where", "num_bytes < 0"]

    done = CliRunner().invoke(app, arguments)

    assert done.exit_code != 0
    assert "no kept document satisfies it" in str(done.exception)

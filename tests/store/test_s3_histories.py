"""Random histories of a store on S3: after each run it equals a fresh one on a disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.guarantees.test_any_history import NIGHTLY, Histories
from tests.models.tiny_bert import random_weights, write_model

pytestmark = pytest.mark.slow


class HistoriesOnS3(Histories):
    """The same histories, of a store elsewhere."""

    url: str
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.store = f"{self.url}/{next(self.numbers)}"  # type: ignore[assignment]


@pytest.mark.slow
def test_after_any_history_a_store_on_s3_equals_a_fresh_one(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.store.files.fsync_file", lambda path: None)
    models = {
        name: write_model(tmp_path / name, weights=random_weights(seed))
        for seed, name in enumerate(("A", "B"))
    }
    monkeypatch.setattr(Histories, "models", models, raising=False)
    monkeypatch.setattr(Histories, "fresh", {}, raising=False)
    monkeypatch.setattr(Histories, "steps", 0)
    monkeypatch.setattr(HistoriesOnS3, "url", s3, raising=False)
    run_state_machine_as_test(
        HistoriesOnS3,
        settings=settings(
            max_examples=100 if NIGHTLY else 3,
            stateful_step_count=40 if NIGHTLY else 25,
            deadline=None,
            phases=list(Phase) if NIGHTLY else [Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

    assert Histories.steps > 20

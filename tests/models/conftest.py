"""Tiny models, and a cache folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.models.tiny_bert import MakeModel, write_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("PENSTOCK_CACHE", str(cache))
    return cache


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    def make(name: str = "tiny", **settings: Any) -> Path:
        return write_model(tmp_path / name, **settings)

    return make

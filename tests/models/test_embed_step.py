"""The step checks its settings and opens the model that it names."""

from __future__ import annotations

from typing import Any

import pytest
from tests.models.tiny_bert import MakeModel

from penstock.errors import ConfigError
from penstock.models import model_fingerprint
from penstock.steps.embed import Embed


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        pytest.param({"precision": "fp16"}, r"Embed\.precision", id="precision"),
        pytest.param({"model": ""}, r"Embed\.model", id="empty-model"),
        pytest.param({"model": 3}, r"Embed\.model", id="no-name"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        Embed(**settings)


def test_settings_have_names() -> None:
    with pytest.raises(TypeError):
        Embed("a-model")  # type: ignore[call-arg]


def test_opens_the_model_that_its_fingerprint_names(make_model: MakeModel) -> None:
    step = Embed(model=str(make_model()), precision="int8")

    with step.open() as encoder:
        assert encoder.fingerprint == step.fingerprint() == model_fingerprint(step.model, "int8")

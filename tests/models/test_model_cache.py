"""The cache holds whole files only, and never changes an answer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.models.tiny_bert import MakeModel

from penstock.models import cache, model_fingerprint, open_encoder, tokenizer_fingerprint

TEXTS = ["w1 w2 w3", "w4"]


def _graphs(folder: Path) -> list[Path]:
    return sorted((folder / "graphs").iterdir())


def test_a_graph_is_built_once(make_model: MakeModel, own_cache: Path) -> None:
    folder = str(make_model())
    open_encoder(folder).close()
    before = [file.stat().st_mtime_ns for file in _graphs(own_cache)]
    open_encoder(folder).close()

    assert len(before) == 1
    assert [file.stat().st_mtime_ns for file in _graphs(own_cache)] == before


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_a_corrupt_graph_is_built_again(
    make_model: MakeModel, own_cache: Path, damage: Callable[[Path], None]
) -> None:
    folder = str(make_model())
    with open_encoder(folder) as encoder:
        expected = encoder.encode(TEXTS)
    (graph,) = _graphs(own_cache)
    whole = graph.read_bytes()
    damage(graph)

    with open_encoder(folder) as encoder:
        np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    assert [file.read_bytes() for file in _graphs(own_cache)] == [whole]


def test_a_cache_that_cannot_be_written_is_done_without(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    monkeypatch.setenv("PENSTOCK_CACHE", str(blocked / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with open_encoder(str(make_model())) as encoder:
        assert encoder.encode(TEXTS).shape == (2, encoder.dim)


def test_two_processes_may_build_at_once(make_model: MakeModel, own_cache: Path) -> None:
    folder = make_model()
    code = (
        "import sys; from penstock.models import open_encoder; "
        "print(open_encoder(sys.argv[1], 'int8').encode(['w1 w2']).tobytes().hex())"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    first, second = (process.communicate()[0] for process in running)

    assert [process.returncode for process in running] == [0, 0]
    assert first == second
    assert [file.suffix for file in _graphs(own_cache)] == [".onnx"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"PENSTOCK_CACHE": "/a"}, "/a", id="own"),
        pytest.param({"XDG_CACHE_HOME": "/b"}, "/b/penstock", id="xdg"),
        pytest.param({"HOME": "/c"}, "/c/.cache/penstock", id="home"),
    ],
)
def test_where_the_cache_lies(
    settings: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    assert cache.cache_folder() == Path(expected)


def test_a_changed_file_has_another_hash(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    before = cache.file_hash(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))

    assert cache.file_hash(file) != before


def test_bytes_put_in_place_with_the_old_time_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    before = cache.file_hash(file)
    written = file.stat().st_mtime_ns
    time.sleep(0.02)  # file systems tell times in steps
    file.write_bytes(b"two")
    os.utime(file, ns=(written, written))

    assert cache.file_hash(file) != before


def test_a_broken_memory_of_hashes_is_ignored(tmp_path: Path, own_cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    expected = cache.file_hash(file)
    for memory in (own_cache / "hashes").iterdir():
        memory.write_text("[]")

    assert cache.file_hash(file) == expected


CHANGES: dict[str, dict[str, object]] = {
    "pooling": {"pooling": "cls_token"},
    "normalize": {"normalize": False},
    "max-tokens": {"max_tokens": 23},
    "lowercase": {"lowercase": True},
    "activation": {"hidden_act": "relu"},
    "weights": {"dtype": "F16"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_vectors_changes_the_fingerprint(
    make_model: MakeModel, change: dict[str, object]
) -> None:
    before = model_fingerprint(str(make_model("before")))

    assert model_fingerprint(str(make_model("after", **change))) != before


def test_the_fingerprint_is_of_content_and_precision(make_model: MakeModel) -> None:
    one, two = str(make_model("one")), str(make_model("two"))
    names = [model_fingerprint(one, precision) for precision in ("fp32", "int8", "bf16")]

    assert model_fingerprint(two) == names[0]
    assert len(set(names)) == 3
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(two)


def test_the_fingerprint_loads_no_runtime(make_model: MakeModel) -> None:
    code = (
        "import sys; from penstock.models import model_fingerprint as f; f(sys.argv[1]); "
        "print(sorted({'onnxruntime', 'onnx', 'tokenizers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(make_model())]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"

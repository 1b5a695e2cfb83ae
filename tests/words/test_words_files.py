from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.words.conftest import Write

from penstock.errors import ConfigError, FormatError, StoreError
from penstock.words import Words, WordsSearcher, WordsSettings, WordsWriter, merge_words
from penstock.words.files import FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "short", "garbled"])
def test_a_damaged_file_is_named(write: Write, name: str, damage: str) -> None:
    words = write(["a fox", "a dog"] * 200)
    path = words.folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(data[:-1] if name != "words.json" else data[:-9])
    elif damage == "garbled":
        path.write_bytes(b"?" * len(data))

    with pytest.raises(StoreError, match=r"penstock index rebuild") as caught:
        Words.open(words.folder)

    assert caught.value.place == str(path)


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_changed_byte_is_found_by_a_check(write: Write, name: str) -> None:
    words = write(["a fox", "a dog"])
    words.check()
    path = words.folder / name
    data = bytearray(path.read_bytes())
    data[-1 if name != "postings.npy" else 140] ^= 1
    path.write_bytes(data)

    with pytest.raises(StoreError, match=name):
        words.check()


def test_garbled_postings_are_an_error_and_no_crash(write: Write) -> None:
    words = write([f"fox w{i % 7} w{i % 3}" for i in range(700)])
    data = (words.folder / "postings.npy").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(30):
        garbled = bytearray(data)
        for at in generator.integers(128, len(data), 200):
            garbled[at] = generator.integers(256)
        (words.folder / "postings.npy").write_bytes(garbled)
        searcher = WordsSearcher([Words.open(words.folder)], [np.arange(700) % 2 == 0])
        for query in ("fox w1 w2", '"fox w1"', "w*"):
            with contextlib.suppress(StoreError):
                searcher.search(query, 10)


def test_a_newer_format_asks_for_a_newer_penstock(write: Write) -> None:
    path = write(["fox"]).folder / "words.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))

    with pytest.raises(FormatError, match="upgrade"):
        Words.open(path.parent)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    column = pa.array(["fox"])
    with pytest.raises(ConfigError, match="must be as many"), WordsWriter(tmp_path / "w") as writer:
        writer.add(column, column, pa.array(["fox", "dog"]))

    assert not (tmp_path / "w").exists()


def test_a_folder_is_never_overwritten(write: Write) -> None:
    words = write(["fox"])

    with pytest.raises(FileExistsError):
        WordsWriter(words.folder)
    with pytest.raises(FileExistsError):
        merge_words(words.folder, [(words, None)])

    assert Words.open(words.folder).num_rows == 1


@pytest.mark.parametrize(
    ("keep", "order"),
    [
        (np.ones(3, np.bool_), None),
        (None, np.array([0])),
        (None, np.array([0, 0])),
        (None, np.array([1, 2])),
    ],
    ids=["mask", "short", "twice", "beyond"],
)
def test_wrong_merges_are_refused(
    write: Write, tmp_path: Path, keep: np.ndarray | None, order: np.ndarray | None
) -> None:
    with pytest.raises(ConfigError):
        merge_words(tmp_path / "m", [(write(["fox", "dog"]), keep)], order)
    with pytest.raises(ConfigError):
        merge_words(tmp_path / "m", [])

    assert not (tmp_path / "m").exists()


def test_columns_may_be_chunked_sliced_and_null(tmp_path: Path) -> None:
    texts = pa.chunked_array([["x", "a fox"], [None, "dog"]], pa.string()).slice(1)
    blank = pa.nulls(3, pa.large_string())
    with WordsWriter(tmp_path / "w") as writer:
        writer.add(blank, blank, texts)

    searcher = WordsSearcher([Words.open(tmp_path / "w")])
    assert searcher.search("fox dog", 3)[2].tolist() == [2, 0]
    assert len(searcher.search("x", 3)[0]) == 0


@pytest.mark.parametrize(
    "setting", [{"language": "klingon"}, {"k1": -1.0}, {"b": 1.5}, {"b": float("nan")}], ids=repr
)
def test_wrong_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        WordsSettings(**setting)  # type: ignore[arg-type]


def test_importing_words_is_light() -> None:
    code = (
        "import penstock.words, sys; print([m for m in ('numba', 'Stemmer') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"

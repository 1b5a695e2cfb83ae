"""Words are found by BM25, exactly, whatever the query looks like."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from penstock.errors import StoreError
from penstock.index.words import WordsIndex, WordsWriter, deleted_share, words_files

U64 = npt.NDArray[np.uint64]


def _rows(ids: Sequence[int]) -> U64:
    return np.array(ids, np.uint64)


def _write(
    folder: Path,
    texts: dict[int, str],
    previous: Path | None = None,
    removed: Sequence[int] = (),
    *,
    many: bool = False,
) -> WordsIndex:
    writer = WordsWriter(folder, previous, many=many)
    writer.delete(_rows(removed))
    none = [None] * len(texts)
    writer.add(_rows(list(texts)), none, none, list(texts.values()))
    writer.commit()
    return WordsIndex(folder)


def _found(
    index: WordsIndex, text: str, k: int = 10, allowed: Sequence[int] | None = None
) -> list[int]:
    rows = None if allowed is None else np.unique(_rows(allowed))
    found: list[int] = index.search(text, k, rows)[1].tolist()
    return found


_TEXTS = {
    1: "Running a query over the index",
    2: "def read_config(path): return parse(path)",
    3: "全文検索エンジン",
    4: "Schöne Grüße aus Köln",
    5: "to be or not to be",
    6: "",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> WordsIndex:
    return _write(tmp_path_factory.mktemp("words") / "w", _TEXTS)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        pytest.param("runs", [1], id="stem"),
        pytest.param("INDEXES queries", [1], id="case-and-plural"),
        pytest.param("config", [2], id="part-of-a-name"),
        pytest.param("検索", [3], id="no-spaces"),
        pytest.param("grüße", [4], id="accents"),
        pytest.param("not to be", [5], id="only-stop-words"),
        pytest.param("the config", [2], id="stop-words-do-not-count-beside-others"),
        pytest.param("absent", [], id="nothing"),
        pytest.param("", [], id="empty"),
        pytest.param(" \t\n", [], id="blank"),
        pytest.param("!?*", [], id="signs-only"),
        pytest.param('words:"config AND -(NOT path^2~ [a TO *] \\', [2], id="operators-are-text"),
        pytest.param("config " * 20_000, [2], id="long"),
        pytest.param(" ".join(f"w{i}" for i in range(20_000)) + " config", [2], id="many-words"),
        pytest.param("\0config \udc80\uffff", [2], id="odd-characters"),
    ],
)
def test_any_text_is_a_query(index: WordsIndex, query: str, rows: list[int]) -> None:
    assert _found(index, query) == rows


def test_a_title_counts_more_than_the_text(tmp_path: Path) -> None:
    writer = WordsWriter(tmp_path / "w", None)
    writer.add(
        _rows([1, 2, 3]),
        [None, "apple", None],
        [None, None, "apple"],
        ["apple pear", "pear", "pear"],
    )
    writer.commit()

    assert _found(WordsIndex(tmp_path / "w"), "apple") == [2, 1, 3]


def test_equal_scores_come_by_row_id(tmp_path: Path) -> None:
    ids = [int(i) for i in np.random.default_rng(0).permutation(300)]
    index = _write(tmp_path / "w", dict.fromkeys(ids, "same words here"))

    assert _found(index, "same", 20) == list(range(20))
    assert _found(index, "same", 5, [299, 7, 200, 3, 9, 11]) == [3, 7, 9, 11, 200]


def test_row_ids_may_be_any_64_bits(tmp_path: Path) -> None:
    ids = [0, 2**63 - 1, 2**63, 2**64 - 1]
    index = _write(tmp_path / "w", dict.fromkeys(ids, "same"))

    assert _found(index, "same") == ids
    assert _found(index, "same", 10, ids[2:]) == ids[2:]


def _corpus(seed: int, num_rows: int) -> dict[int, str]:
    random = np.random.default_rng(seed)
    draws = np.minimum(random.zipf(1.3, (num_rows, 12)), 200)
    return {row: " ".join(f"w{i}" for i in draw) for row, draw in enumerate(draws)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> WordsIndex:
    return _write(tmp_path_factory.mktemp("corpus") / "w", _corpus(0, 3000))


@pytest.mark.parametrize("share", [0.003, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 10, 5000])
def test_allowed_rows_are_chosen_before_the_best_are_taken(
    corpus: WordsIndex, share: float, k: int
) -> None:
    allowed = np.flatnonzero(np.random.default_rng(1).random(3000) < share).astype(np.uint64)
    for query in ("w1 w2", "w40 w77", "w150", "w2 w199 w3"):
        scores, rows = corpus.search(query, 3000)
        all_scores = dict(zip(rows.tolist(), scores, strict=True))
        keep = np.isin(rows, allowed)

        some_scores, some_rows = corpus.search(query, k, allowed)

        assert some_rows.tolist() == rows[keep][:k].tolist()
        assert some_scores == pytest.approx(scores[keep][:k], abs=2e-4)
        assert corpus.scores(query, allowed) == pytest.approx(
            [all_scores.get(row, 0) for row in allowed.tolist()],
            abs=2e-4,
        )


def test_allowed_rows_that_are_the_worst_are_still_found(tmp_path: Path) -> None:
    texts = dict.fromkeys(range(3000), "apple") | dict.fromkeys(
        range(3000, 3050), "apple " + "pear " * 50
    )
    index = _write(tmp_path / "w", texts)

    assert _found(index, "apple", 10, range(3000, 3050)) == list(range(3000, 3010))


def test_scores_do_not_depend_on_the_number_of_runs(tmp_path: Path) -> None:
    texts = _corpus(0, 900)
    fresh = _write(tmp_path / "fresh", texts, many=True)
    previous: Path | None = None
    for run in range(12):
        part = {row: text for row, text in texts.items() if row % 12 == run}
        updated = _write(tmp_path / f"run-{run}", part, previous)
        previous = tmp_path / f"run-{run}"

    for query in ("w1 w2", "w40 w77", "w150", "w2 w199 w3 w17 w5"):
        expected, found = fresh.search(query, 900), updated.search(query, 900)
        assert dict(zip(found[1].tolist(), found[0], strict=True)) == pytest.approx(
            dict(zip(expected[1].tolist(), expected[0], strict=True)), abs=2e-4
        )
        assert found[1][:10].tolist() == expected[1][:10].tolist()


def test_older_folders_are_left_alone(tmp_path: Path) -> None:
    before = _write(tmp_path / "1", {1: "apple", 2: "apple pear"})
    stamps = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in words_files(tmp_path / "1")
    }

    after = _write(tmp_path / "2", {3: "apple"}, tmp_path / "1", removed=[1])

    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in words_files(tmp_path / "1")
    } == stamps
    assert _found(before, "apple") == _found(WordsIndex(tmp_path / "1"), "apple") == [1, 2]
    assert _found(after, "apple") == [3, 2]


def test_works_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    _write(tmp_path / "1", {1: "apple"})
    monkeypatch.setattr("os.link", refuse)

    assert _found(_write(tmp_path / "2", {2: "apple"}, tmp_path / "1"), "apple") == [1, 2]


def test_a_row_can_be_replaced_in_one_run(tmp_path: Path) -> None:
    _write(tmp_path / "1", {1: "apple", 2: "pear"})
    index = _write(tmp_path / "2", {1: "pear"}, tmp_path / "1", removed=[1])

    assert _found(index, "apple") == []
    assert sorted(_found(index, "pear")) == [1, 2]
    assert 0 < deleted_share(tmp_path / "2") < 1


def test_many_threads_may_search_at_once(index: WordsIndex) -> None:
    found: list[list[int]] = []

    def search() -> None:
        found.extend(_found(index, "config queries") for _ in range(50))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 200
    assert all(rows == found[0] for rows in found)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="rebuild the index"):
        WordsIndex(tmp_path / "none")

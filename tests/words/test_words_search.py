from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.words import words_model
from tests.words.conftest import Write

from penstock.errors import ConfigError, StoreError
from penstock.words import Words, WordsSearcher, WordsSettings, merge_words

Search = Callable[..., list[int]]
QUICK = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


WORDS = [f"{a}{b}{c}" for a in "bcdfghk" for b in "aeiou" for c in "lmnprstvwxz"]


def corpus(seed: int, num_rows: int, num_words: int = 300) -> list[tuple[str, str, str]]:
    """Rows of the words of `WORDS`, the rarer the later they stand there; some are empty."""
    generator = np.random.default_rng(seed)
    sizes = generator.geometric(0.08, num_rows) - 1
    words = np.minimum(generator.zipf(1.3, sizes.sum()), num_words)
    ends = np.cumsum(sizes)
    rows = []
    for begin, end in zip(ends - sizes, ends, strict=True):
        text = [WORDS[word] for word in words[begin:end]]
        cut = len(text) // 8
        rows.append(
            (" ".join(text[:cut]), " ".join(text[cut : 2 * cut]), " ".join(text[2 * cut :]))
        )
    return rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, str, str]], Words]:
    """More rows than a window has."""
    import pyarrow as pa

    from penstock.words import WordsWriter

    rows = corpus(1, 40_000)
    folder = tmp_path_factory.mktemp("large") / "words"
    with WordsWriter(folder, WordsSettings(language="none")) as writer:
        writer.add(*(pa.array([row[i] for row in rows], pa.string()) for i in range(3)))
    return rows, Words.open(folder)


NONE = WordsSettings(language="none")
QUERY = st.lists(st.integers(1, 300).map(WORDS.__getitem__), min_size=1, max_size=6).map(" ".join)


def exhaustive(
    searcher: WordsSearcher, words: Words, query: str, k: int, allowed: np.ndarray
) -> tuple[list[float], list[int]]:
    scores = searcher.scores(query, 0, np.arange(words.num_rows))
    scores[~allowed] = 0
    order = np.lexsort((np.arange(len(scores)), -scores))[:k]
    order = order[scores[order] > 0]
    return scores[order].tolist(), order.tolist()


@QUICK
@given(query=QUERY, k=st.sampled_from([1, 10, 100]), share=st.sampled_from([0, 0.001, 0.2, 0.9, 2]))
def test_ranks_are_those_of_exhaustive_scoring(
    large: tuple[object, Words], query: str, k: int, share: float
) -> None:
    _, words = large
    searcher = WordsSearcher([words], None, NONE)
    allowed = np.random.default_rng(5).random(words.num_rows) < share

    scores, segments, places = searcher.search(query, k, [None if share == 2 else allowed])

    expected = exhaustive(searcher, words, query, k, allowed)
    assert (scores.tolist(), places.tolist()) == expected
    assert not segments.any()
    kinds = [array.dtype.str for array in (scores, segments, places)]
    assert kinds == ["<f8", "<i4", "<i8"]


@QUICK
@given(
    seed=st.integers(0, 1000),
    query=QUERY,
    k1=st.sampled_from([0.0, 1.2, 3.0]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
)
def test_scores_are_bm25(write: Write, seed: int, query: str, k1: float, b: float) -> None:
    rows = corpus(seed, 60, num_words=30)
    chosen = WordsSettings(language="none", k1=k1, b=b)
    words = write(rows, "none")

    scores = WordsSearcher([words], None, chosen).scores(query, 0, np.arange(60))

    fields = [(title.split(), heading.split(), text.split()) for title, heading, text in rows]
    expected = words_model.scores(fields, Counter(query.split()), chosen)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, list[int], int]:
    size = draw(st.integers(1, 300))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
    return size, [0, *cuts, size], draw(st.integers(0, 1000))


@QUICK
@given(partition=partitions(), query=QUERY, k=st.sampled_from([1, 5, 400]))
def test_segments_and_deleted_rows_leave_no_trace(
    write: Write, partition: tuple[int, list[int], int], query: str, k: int
) -> None:
    size, cuts, seed = partition
    rows = corpus(seed, size, num_words=40)
    keep = np.random.default_rng(seed).random(size) < 0.7
    fresh = WordsSearcher(
        [write([row for row, kept in zip(rows, keep, strict=True) if kept], "none")], None, NONE
    )
    bounds = list(pairwise(cuts))
    parts = [write(rows[a:b], "none") for a, b in bounds]

    several = WordsSearcher(parts, [keep[a:b] for a, b in bounds], NONE)
    scores, segments, places = several.search(query, k)

    expected_scores, _, expected_places = fresh.search(query, k)
    names = np.cumsum(keep) - 1
    found = [int(names[cuts[s] + p]) for s, p in zip(segments, places, strict=True)]
    assert found == expected_places.tolist()
    assert scores.tolist() == expected_scores.tolist()  # to the last bit
    assert several.num_rows == fresh.num_rows == keep.sum()
    for number, (a, b) in enumerate(bounds):
        live = np.flatnonzero(keep[a:b])
        again = several.scores(query, number, live)
        assert again.tolist() == fresh.scores(query, 0, names[a + live]).tolist()


@QUICK
@given(partition=partitions(), shuffle=st.booleans())
def test_a_merged_segment_is_byte_for_byte_a_fresh_one(
    write: Write, tmp_path: Path, partition: tuple[int, list[int], int], shuffle: bool
) -> None:
    size, cuts, seed = partition
    rows = corpus(seed, size, num_words=40)
    generator = np.random.default_rng(seed)
    keep = generator.random(size) < 0.7
    bounds = list(pairwise(cuts))
    parts = [(write(rows[a:b]), keep[a:b] if i else None) for i, (a, b) in enumerate(bounds)]
    keep[: cuts[1]] = True
    kept = [row for row, kept in zip(rows, keep, strict=True) if kept]
    order = generator.permutation(len(kept)) if shuffle else None
    folder = tmp_path / f"merged{len(list(tmp_path.iterdir()))}"

    merge_words(folder, parts, order)

    fresh = write(kept if order is None else [kept[i] for i in order])
    assert sorted(path.name for path in folder.iterdir()) == [
        "lengths.npy",
        "offsets.npy",
        "postings.npy",
        "terms.npy",
        "words.json",
    ]
    for path in fresh.folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    Words.open(folder).check()


def test_batches_threads_and_spilling_leave_no_trace(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = corpus(7, 3000)
    plain = write(rows)
    monkeypatch.setattr("penstock.words.writer._BATCH_BYTES", 5_000)
    monkeypatch.setattr("penstock.words.writer._MEMORY_BYTES", 30_000)
    monkeypatch.setattr("penstock.words.merging._RANGE_BYTES", 500)
    monkeypatch.setattr("penstock.words.writer.num_cores", lambda: 3)
    monkeypatch.setattr("penstock.words.merging.num_cores", lambda: 3)

    many = write(rows, batches=7)

    for path in plain.folder.iterdir():
        assert (many.folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert sum(1 for _ in many.folder.iterdir()) == 5


def test_a_title_counts_twice_and_a_heading_once(write: Write) -> None:
    words = write([("fox", "", "a b"), ("", "fox", "a b c"), ("", "", "fox a b c"), ("", "", "")])

    scores, _, places = WordsSearcher([words]).search("fox", 5)

    assert places.tolist() == [0, 1, 2]
    assert scores[0] > scores[1] == scores[2]


def test_equal_scores_are_in_the_order_of_segments_and_places(write: Write) -> None:
    small, larger = write(["fox"] * 2), write(["fox"] * 5)

    _, segments, places = WordsSearcher([small, larger]).search("fox", 4)

    assert segments.tolist() == [0, 0, 1, 1]
    assert places.tolist() == [0, 1, 0, 1]


def test_a_word_of_all_rows_is_found(write: Write) -> None:
    searcher = WordsSearcher([write(["the"] * 300)])

    assert len(searcher.search("the", 400)[0]) == 300
    assert (searcher.search("the", 1)[0] > 0).all()


def test_many_words_keep_those_that_weigh_most(write: Write) -> None:
    rows = [f"{'rare' if i < 290 else 'twice twice'} {chr(0x4E00 + i)}" for i in range(300)]
    searcher = WordsSearcher([write([*rows, *rows[290:]], "none")], None, NONE)

    places = searcher.search(" ".join(chr(0x4E00 + i) for i in range(300)), 400)[2]

    # 290 letters are in one row and 10 in two; the first 256 of the rarest are looked for.
    assert sorted(places.tolist()) == list(range(256))


def test_frequent_words_are_expanded_and_change_nothing(
    large: tuple[object, Words], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(8)
    allowed = [generator.random(large[1].num_rows) < 0.5]
    queries = [" ".join(WORDS[i] for i in generator.integers(1, 60, 4)) for _ in range(40)]
    expected = [WordsSearcher([large[1]], None, NONE).search(query, 20) for query in queries]
    few = [WordsSearcher([large[1]], None, NONE).search(query, 20, allowed) for query in queries]

    for room in (60_000, 1 << 22):  # too little for all, and enough
        monkeypatch.setattr("penstock.words.searcher._MAX_EXPANDED", room)
        searcher = WordsSearcher([large[1]], None, NONE)
        for _ in range(3):
            for query, whole, part in zip(queries, expected, few, strict=True):
                for found, known in (
                    (searcher.search(query, 20), whole),
                    (searcher.search(query, 20, allowed), part),
                ):
                    assert [array.tolist() for array in found] == [a.tolist() for a in known]
        assert 0 < searcher._segments[0].frequent._used <= room


def test_threads_share_a_searcher(large: tuple[object, Words]) -> None:
    searcher = WordsSearcher([large[1]], None, NONE)
    queries = [f"{WORDS[i]} {WORDS[i + 7]} {WORDS[2]}" for i in range(1, 60)]
    expected = [searcher.search(query, 10)[2].tolist() for query in queries]
    fresh = WordsSearcher([large[1]], None, NONE)
    found: dict[int, list[list[int]]] = {}

    def run(number: int) -> None:
        found[number] = [fresh.search(query, 10)[2].tolist() for query in queries]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [expected] * 4


@pytest.mark.parametrize(
    ("rows", "query", "expected"),
    [
        (["red fox", "fox red"], '"red fox"', [0]),
        (["red fox", "fox red", "a red fox here"], '"red foxes" a', [2, 0]),
        (["data frame", "dataFrame", "frame data"], '"data frame"', [0, 1]),
        (["to be or not", "be to or not"], '"to be or not"', [0]),
        (["red", "fox"], '"red fox"', []),
        (["red fox", "fox"], 'red "fox', [0, 1]),
        (["fox", "7 inch"], '7" fox', [1, 0]),
        (["fox"], '""', []),
        (["fox", "dog"], '"" dog', [1]),
        (["東京都", "京東"], '"東京"', [0]),
        (["a a b", "a b"], '"a a b"', [0]),
    ],
    ids=repr,
)
def test_phrases(search: Search, rows: list[str], query: str, expected: list[int]) -> None:
    assert sorted(search(rows, query)) == sorted(expected)


def test_phrases_of_frequent_words_cross_blocks(write: Write) -> None:
    generator = np.random.default_rng(2)
    rows = [" ".join(generator.choice(list("abc"), generator.integers(1, 9))) for _ in range(2000)]
    rows[1500] = "c " * 3000 + "a a a"  # more positions than there is room for at first
    searcher = WordsSearcher([write(rows)])

    places = searcher.search('"a c b"', 2000)[2].tolist()
    long = searcher.search('"c c a a a"', 2000)[2].tolist()

    assert sorted(places) == [i for i, row in enumerate(rows) if "a c b" in row]
    assert sorted(long) == [i for i, row in enumerate(rows) if "c c a a a" in row]


def test_no_phrase_reaches_over_fields(write: Write) -> None:
    searcher = WordsSearcher([write([("red", "fox", "cub"), ("red fox", "", "")])])

    assert searcher.search('"red fox"', 5)[2].tolist() == [1]
    assert searcher.search('"fox cub"', 5)[2].tolist() == []
    assert searcher.search('"red red"', 5)[2].tolist() == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("title:fox", [0]),
        ("heading:fox", [1]),
        ("title:fox cub", [0]),
        ('heading:"grey fox"', [1]),
        ('title:"grey fox"', []),
        ("body:fox", [0, 1, 2]),
        ("title: fox", [0, 1, 2]),
    ],
)
def test_words_of_a_field(write: Write, query: str, expected: list[int]) -> None:
    rows = [
        ("a red fox", "", "cub"),
        ("a", "grey fox", "cub"),
        ("", "", "fox cub"),
        ("title", "", ""),
    ]
    found = WordsSearcher([write(rows)]).search(query, 9)[2].tolist()

    assert sorted(set(found) - {3}) == expected


def test_in_prose_quotes_and_colons_are_punctuation(search: Search) -> None:
    rows = ["rotation of eigenvectors", "a matrix"]
    query = (
        'Sensitivity of "eigenvalue decomposition" for matrix pencils, intervals, norms, spaces,'
        " perturbation theory, title:bounds and numerical error estimates of distinct clusters"
    )

    assert search(rows, query) == [1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("comput*", [0, 1]),
        ("computing*", [0, 1]),
        ("data_fr*", [2]),
        ("zzz*", []),
        ("zzz* datum", [3]),
        ("*", []),
        ("**bold**", []),
        ("count(*)", [4]),
        ("東*", [5]),
    ],
)
def test_beginnings_of_words(search: Search, query: str, expected: list[int]) -> None:
    rows = ["computing", "computers", "dataFrames", "datum", "count", "東京"]

    assert sorted(search(rows, query)) == expected


def test_a_beginning_stands_for_its_most_frequent_words(write: Write) -> None:
    words = ["pre" + chr(97 + i // 26) + chr(97 + i % 26) for i in range(100)]
    searcher = WordsSearcher([write(words[:50], "none"), write(words[50:] * 2, "none")], None, NONE)

    found = searcher.search("pre*", 200)

    # All 50 words of two rows and the first 14 of those of one; all weigh the same.
    assert sorted(zip(found[1].tolist(), found[2].tolist(), strict=True)) == (
        [(0, i) for i in range(14)] + [(1, i) for i in range(100)]
    )


@pytest.mark.parametrize(
    ("query", "typos", "expected"),
    [
        ("elefant", 0, []),
        ("elefant", 1, []),
        ("elefant", 2, [0]),
        ("elehpant", 1, [0]),
        ("lephant", 1, [0]),
        ("givaffe", 1, [1]),
        ("cta", 1, [2]),
        ("ct", 2, []),
        ("girafe elehpant", 1, [0, 1]),
        ("зебро", 1, [3]),
    ],
)
def test_typos(search: Search, query: str, typos: int, expected: list[int]) -> None:
    rows = ["elephant", "giraffe", "cat", "зебра"]

    assert sorted(search(rows, query, typos=typos, language="none")) == expected


def test_what_is_mistyped_scores_lower(write: Write) -> None:
    searcher = WordsSearcher([write(["giraffe", "elephant"], "none")], None, NONE)

    exact, mistyped = searcher.search("giraffe", 1)[0], searcher.search("girafe", 1, typos=1)[0]

    assert 0 < mistyped[0] < exact[0]
    assert searcher.scores("girafe", 0, np.array([0]), typos=1).tolist() == mistyped.tolist()
    assert searcher.scores("girafe", 0, np.array([0])).tolist() == [0]


def test_stop_words_are_left_out_of_queries_alone(search: Search) -> None:
    rows = ["the fox", "the the the", "how to do it"]

    assert search(rows, "the fox") == [0]
    assert search(rows, "the") == [1, 0]
    assert search(rows, "how to do it") == [2]


@pytest.mark.parametrize("query", ["filename", "file_name", "fileName", "FILE_NAME"])
def test_an_identifier_is_found_however_it_is_written(search: Search, query: str) -> None:
    assert search(["open the FileName", "file", "other"], query)[0] == 0


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("全文検索エンジン", "検索"),
        ("ภาษาไทยง่ายนิดเดียว", "ไทย"),
        ("한국어 문서", "문서"),
        ("документы поиска", "документ"),
    ],
)
def test_other_scripts(search: Search, text: str, query: str) -> None:
    assert search(["something else", text], query, language="russian") == [1]


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "\x00",
        "\ud800",
        "\ud800 fox",
        "🦊",
        "'\"*:()[]{}",
        "title:",
        'title:"',
        "fox " * 25_000,
        "x" * 100_000,
        "狐" * 50_000,
        '"' * 99,
        "fox* " * 9,
        "a.b_c" * 9000,
    ],
    ids=lambda query: repr(query[:12]),
)
def test_any_text_is_a_query(search: Search, query: str) -> None:
    found = search(["a fox", "dog"], query, typos=2)

    assert found == ([0] if "fox" in query else [])


def test_empty_rows_and_no_rows(write: Write) -> None:
    nothing, blank = write([]), write([None, (None, None, None), ""])

    for searcher in (WordsSearcher([]), WordsSearcher([nothing]), WordsSearcher([blank, nothing])):
        for query in ("fox", '"red fox"', "fo*", "title:fox"):
            assert len(searcher.search(query, 5, typos=2)[0]) == 0
    assert WordsSearcher([blank]).scores("fox", 0, np.array([2, 0])).tolist() == [0, 0]
    words = write(["fox"])
    deleted = WordsSearcher([words], [np.zeros(1, np.bool_)])
    assert deleted.num_rows == 0
    assert len(deleted.search("fox", 3)[0]) == 0


def test_more_than_there_are_and_none_at_all(write: Write) -> None:
    searcher = WordsSearcher([write(["fox", "fox fox"])])

    assert len(searcher.search("fox", 1 << 40)[0]) == 2
    assert len(searcher.search("fox", 0)[0]) == 0


def test_scores_are_those_of_the_search(large: tuple[object, Words]) -> None:
    searcher = WordsSearcher([large[1]], None, NONE)
    query = " ".join(WORDS[i] for i in (3, 7, 50))
    scores, _, places = searcher.search(query, 50)

    assert searcher.scores(query, 0, places).tolist() == scores.tolist()
    assert searcher.scores(query, 0, np.array([5, 5, 1])).shape == (3,)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.search("fox", 1, [np.ones(3, np.bool_)]),
        lambda s: s.search("fox", 1, []),
        lambda s: s.search("fox", 1, typos=3),
        lambda s: s.scores("fox", 0, np.array([2])),
        lambda s: s.scores("fox", 0, np.array([-1])),
    ],
    ids=["mask", "masks", "typos", "above", "below"],
)
def test_wrong_arguments_are_named(write: Write, call: Callable[[WordsSearcher], object]) -> None:
    with pytest.raises(ConfigError):
        call(WordsSearcher([write(["fox", "dog"])]))


def test_segments_of_other_languages_do_not_mix(write: Write) -> None:
    with pytest.raises(StoreError, match="'german'"):
        WordsSearcher([write(["fox"], "german")])

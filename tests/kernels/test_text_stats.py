from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions import _words
from penstock.decisions.c4 import C4Quality
from penstock.decisions.fineweb import FineWebQuality
from penstock.decisions.gopher import GopherQuality, GopherRepetition
from penstock.kernels import text_stats
from penstock.steps.c4_lines import C4Lines

PIECES = st.sampled_from(
    [
        *[
            "the ",
            "and ",
            "of ",
            "word ",
            "Word",
            "to ",
            "x",
            "é",
            "日",
            "…",
            "...",
            "..",
            ".",
            "#",
            "- ",
        ],
        *[
            "•",
            "•",
            "\n",
            "\n",
            "\n\n",
            "\n\n\n",
            "\r\n",
            "\r",
            "\u2028",
            "\x0b",
            "\x85",
            " ",
            "\t",
            "  ",
        ],
        *[
            "One two three.\n",
            "A b c d!\n",
            "Is it?\n",
            "“Yes”\n",
            'He said "so"\n',
            "。",
            "!?",
            "'",
        ],
        *[
            "[12]",
            "[]",
            "[edit]",
            "[citation needed]",
            "[",
            "]",
            "[٣]",
            "{",
            "Lorem Ipsum",
            "JavaScript",
        ],
        *[
            "Terms of Use",
            "privacy policy",
            "cookies",
            "use ",
            "use of cookies",
            "a line that reads on.\n",
        ],
    ]
)
TEXTS = st.lists(st.lists(PIECES, max_size=24).map("".join), max_size=3)

# Few words, often the same, and few ways to end a sentence.
FEW = st.sampled_from(["a ", "b ", "ab ", "the ", "\n", "\n\n"])
REPETITIVE = st.lists(st.lists(FEW, max_size=60).map("".join), max_size=2)
ENDS = st.sampled_from(["A ", "b.", "! ", "?", " ", "  ", '"', "[1]", "\t", "c.\n", "d e f.\n"])
SENTENCES = st.lists(st.lists(ENDS, max_size=24).map("".join), max_size=3)


def _rows(decision: object, texts: Sequence[str]) -> list[dict[str, int]]:
    column = pa.array(["x", *texts], pa.large_string()).slice(1)
    found: list[dict[str, int]] = decision.signature(  # type: ignore[attr-defined]
        pa.record_batch({"text": column})
    ).to_pylist()
    return found


def _words_of(text: str) -> list[str]:
    _, utf8, cut = _words.cut(pa.array([text], pa.large_string()), "english", keep=False)
    spans = zip(cut.starts.tolist(), cut.sizes.tolist(), strict=True)
    return [utf8[start : start + size].tobytes().decode() for start, size in spans]


def _has(char: str, flag: int) -> bool:
    return bool(_words.flags()[ord(char)] & flag)


@settings(deadline=None, max_examples=200)
@given(texts=TEXTS)
def test_gopher_quality_counts_equal_their_twin(texts: list[str]) -> None:
    expected = []
    for text in texts:
        words, lines = _words_of(text), text.splitlines()
        plain = [w for w in words if any(not _has(c, text_stats.SYMBOL) for c in w)]
        expected.append(
            {
                "words": len(words),
                "plain_words": len(plain),
                "plain_chars": sum(map(len, plain)),
                "letter_words": sum(any(c.isalpha() for c in w) for w in words),
                "stop_words": len(set(words) & set(GopherQuality().stop_words)),
                "hashes": text.count("#"),
                "ellipses": text.count("...") + text.count("…"),
                "lines": len(lines),
                "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines),
                "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines),
            }
        )

    assert _rows(GopherQuality(), texts) == expected


@settings(deadline=None, max_examples=200)
@given(texts=TEXTS)
def test_fineweb_counts_equal_their_twin(texts: list[str]) -> None:
    expected = []
    for text in texts:
        lines = [line for line in text.split("\n") if line.strip()]
        expected.append(
            {
                "lines": len(lines),
                "terminal_lines": sum(_has(line[-1], text_stats.TERMINAL) for line in lines),
                "short_lines": sum(len(line) <= 30 for line in lines),
                "repeated_chars": _copies(lines)[1],
                "chars": len(text.replace("\n", "")),
                "newlines": text.count("\n"),
                "words": len(_words_of(text)),
            }
        )

    assert _rows(FineWebQuality(), texts) == expected


@settings(deadline=None, max_examples=200)
@given(texts=TEXTS | REPETITIVE)
def test_repetition_equals_its_twin(texts: list[str]) -> None:
    found = [list(row.values()) for row in _rows(GopherRepetition(), texts)]

    for text, row in zip(texts, found, strict=True):
        words = _words_of(text)
        paragraphs, lines = re.split("\n{2,}", text.strip()), re.split("\n+", text)
        pieces = [len(text)]
        for parts in (paragraphs, lines):
            pieces += [len(parts), *_copies(parts)]
        assert row[:7] == pieces
        assert row[7:10] == [_top(words, size) for size in range(2, 5)]
        assert row[10:] == [_repeated(words, size) for size in range(5, 11)]


def _copies(pieces: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    copies = [piece for piece in pieces if piece in seen or seen.add(piece)]  # type: ignore[func-returns-value]
    return len(copies), sum(map(len, copies))


def _top(words: list[str], size: int) -> int:
    runs = Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    return max(((n, n * len(run)) for run, n in runs.items()), key=lambda x: x[0], default=(0, 0))[
        1
    ]


def _repeated(words: list[str], size: int) -> int:
    seen: set[str] = set()
    count = i = 0
    while i < len(words) - size + 1:
        run = "".join(words[i : i + size])
        count += len(run) if run in seen else 0
        i += size if run in seen else 1
        seen.add(run)
    return count


STEPS = st.builds(
    C4Lines,
    must_end=st.booleans(),
    min_words=st.sampled_from([2, 3]),
    max_word_chars=st.sampled_from([None, 12]),
    citations=st.booleans(),
    javascript=st.booleans(),
    policy=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(texts=TEXTS | SENTENCES, step=STEPS)
def test_c4_equals_its_twin(texts: list[str], step: C4Lines) -> None:
    expected = [_c4(text, step) for text in texts]

    column = pa.array(texts, pa.large_string())
    edited = step.apply(pa.record_batch({"text": column}))["text"].to_pylist()
    assert edited == [text for text, _ in expected]
    found = [list(row.values()) for row in _rows(C4Quality(lines=step), texts)]
    assert found == [counts for _, counts in expected]


def _c4(text: str, step: C4Lines) -> tuple[str, list[int]]:
    kept, sentences, lorem, curly = [], 0, -1, -1
    for number, line in enumerate(text.splitlines()):
        line = line.strip()
        words = line.split()
        if step.max_word_chars and any(len(word) > step.max_word_chars for word in words):
            continue
        if step.citations:
            line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        ends = line.endswith((".", "?", "!", '"', "'")) and not line.endswith("...")
        if (step.must_end and not ends) or len(words) < (step.min_words or 0):
            continue
        low = line.lower()
        if "lorem ipsum" in low and lorem < 0:
            lorem = number
        if step.javascript and "javascript" in low:
            continue
        if "{" in line and curly < 0:
            curly = number
        policy = [phrase for phrase, is_what in text_stats.PHRASES if is_what == text_stats.POLICY]
        if step.policy and any(phrase in low for phrase in policy):
            continue
        sentences += _sentences(line)
        kept.append(line)
    return "\n".join(kept).strip(), [sentences, lorem, curly]


def _sentences(line: str) -> int:
    """Blanks other than one space after a word are a word of their own."""
    words: list[str] = []
    for run in re.findall(r"\s+|\S+", line):
        if not run.isspace():
            words += _words_of(run)
        elif words and run != " ":
            words.append(" ")
    count, seen = min(len(words), 1), False
    for word in words:
        is_end = len(word) == 1 and _has(word, text_stats.SENTENCE_END)
        is_punctuation = all(_has(char, text_stats.PUNCTUATION) for char in word)
        if seen and not is_end and not is_punctuation:
            count, seen = count + 1, False
        elif is_end:
            seen = True
    return count

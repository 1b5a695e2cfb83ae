from __future__ import annotations

import re
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions import _words
from penstock.kernels import segmenting as sg

# What tokenizers' rules are about: affixes, hyphens, quotes, units, URLs, exceptions, scripts.
PIECES = st.sampled_from(
    [
        *"aAbSsKmz019.,:;!?'\"()[]{}<>=/+-*^~_#%&@$|\\°…—–’“»é²ßЖд中ー日กあ٠\u0301\u200d☃🎉",
        *[" ", "  ", "\n", "\t", "\u00a0", "\u2028", "\x1c", "\0"],
        *[
            "...",
            "--",
            "---",
            "'s",
            "’S",
            "n't",
            "US$",
            "C$",
            "km",
            "m²",
            "°C.",
            "e.g.",
            "a.m.",
            "Mr.",
        ],
        *[
            "http://",
            "www.",
            ".com",
            "example.org",
            "@",
            "8.8.8.8",
            "127.0.0.1",
            ":80",
            "can",
            "not",
        ],
        *["id", "I'm", ":)", "):", ":(", ":((", "(:", "10a.m.", "and/or", "o'clock", "……", "——"],
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=20)


def _words_of(text: str, rules: _words.Rules) -> list[str]:
    column = pa.array(["before ", text], pa.large_string()).slice(1)
    _, utf8, cut = _words.cut(column, rules, keep=False)
    spans = zip(cut.starts.tolist(), cut.sizes.tolist(), strict=True)
    return [utf8[start : start + size].tobytes().decode() for start, size in spans]


@settings(deadline=None, max_examples=400)
@given(text=TEXTS)
def test_english_words_equal_their_twin(text: str) -> None:
    assert _words_of(text, "english") == _twin(text)


@settings(deadline=None, max_examples=150)
@given(texts=st.lists(TEXTS, max_size=4), rules=st.sampled_from(["english", "unicode"]))
def test_what_is_told_of_a_word_is_true(texts: list[str], rules: _words.Rules) -> None:
    column = pa.array(texts, pa.large_string())
    _, utf8, cut = _words.cut(column, rules, keep=False)
    flags = _words.flags()

    assert cut.rows.tolist()[0] == 0
    for row, text in enumerate(texts):
        found = range(cut.rows[row], cut.rows[row + 1])
        words = [
            utf8[cut.starts[i] : cut.starts[i] + cut.sizes[i]].tobytes().decode() for i in found
        ]
        assert "".join(words) == "".join(text.split())
        for i, word in zip(found, words, strict=True):
            classes = [int(flags[ord(char)]) for char in word]
            assert cut.chars[i] == len(word)
            assert cut.some[i] == np.bitwise_or.reduce(classes)
            assert cut.every[i] == np.bitwise_and.reduce(classes)
            assert cut.hashes[i] == _words.hashes_of([word])[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("don't stop, Mr. Smith!", ["do", "n't", "stop", ",", "Mr.", "Smith", "!"]),
        pytest.param("(see http://x.org/a?b.)", ["(", "see", "http://x.org/a?b", ".", ")"]),
        pytest.param("well-known 10km 50%", ["well", "-", "known", "10", "km", "50", "%"]),
        pytest.param("f(x): 3", ["f(x", "):", "3"], id="an-emoticon-of-code"),
        pytest.param("°C. ok", ["°", "C", ".", "ok"], id="more-words-than-pieces"),
        pytest.param("", [], id="empty"),
        pytest.param("\0\0 \x1c", ["\0\0"], id="nul-bytes"),
    ],
)
def test_english_words(text: str, words: list[str]) -> None:
    assert _words_of(text, "english") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("don't, well-known!", ["don't", ",", "well-known", "!"], id="latin"),
        pytest.param("港口abc 日本", ["港", "口", "abc", "日", "本"], id="a-letter-is-a-word"),
        pytest.param("הנמל היה שקט.", ["הנמל", "היה", "שקט", "."], id="right-to-left"),
        pytest.param("cafe\u0301 हिन्दी", ["cafe\u0301", "हिन्दी"], id="marks-belong-to-letters"),
    ],
)
def test_words_by_unicode(text: str, words: list[str]) -> None:
    assert _words_of(text, "unicode") == words


def test_a_run_that_is_no_language_is_one_word() -> None:
    run = ")" * (sg.MAX_RUN + 1)

    assert _words_of(f"a {run} b", "english") == ["a", run, "b"]


def test_room_for_words_grows() -> None:
    text = "ok " * 10 + ")" * 3000 + " (a)" * 500

    assert _words_of(text, "english") == _twin(text)


def test_the_words_of_a_batch_are_cut_once() -> None:
    batch = pa.record_batch({"text": pa.array(["one two"], pa.large_string())})

    assert _words.cut(batch["text"], "english")[2] is _words.cut(batch["text"], "english")[2]


# The twin: the tokenizer's algorithm with its regular expressions, over the same tables.


def _of(*names: str) -> str:
    """The inside of a character class with every character that has one of these flags."""
    wanted = sum(int(getattr(sg, name)) for name in names)
    has = np.concatenate([[False], (_words.flags() & wanted) != 0, [False]])
    edges = np.flatnonzero(np.diff(has.astype(np.int8))).reshape(-1, 2).tolist()
    return "".join(f"\\U{first:08x}-\\U{last - 1:08x}" for first, last in edges)


@cache
def _rules() -> tuple[dict[str, list[str]], dict[str, int], list[re.Pattern[str]]]:
    lines = [
        line
        for line in _words._EXCEPTIONS.read_text(encoding="utf-8").splitlines()
        if not line.startswith("# ")
    ]
    units = "|".join(re.escape(unit) for unit in lines[0].split(" "))
    words, sizes = {}, {}
    for line in lines[1:]:
        parts, _, size = line.partition("\t")
        words[parts.replace(" ", "")] = parts.split(" ")
        if size:
            sizes[parts.replace(" ", "")] = int(size)
    prefix = rf"\.\.+|\+(?![0-9])|(?!\+)[{_of('PREFIX')}]|US\$|[CA]\$"
    suffix = (
        rf"……$|\.\.+$|['’][sS]$|[{_of('SUFFIX')}]$|(?<=[0-9])\+$|(?<=[0-9])(?:{units})$"
        rf"|(?<=[{_of('BEFORE_DOT')}])\.$|(?<=[{_of('UPPER')}]{{2}})\.$|(?<=°[FfCcKk])\.$"
    )
    alpha, quote = _of("ALPHA"), _of("QUOTE")
    infix = (
        rf"\.\.+|…|[{_of('ICON')}]|(?<=[0-9])[-+*^](?=[0-9-])"
        rf"|(?<=[{_of('LOWER')}{quote}])\.(?=[{_of('UPPER')}{quote}])"
        rf"|(?<=[{alpha}]),(?=[{alpha}])|(?<=[{alpha}0-9])(?:-|–|—|--|---|——|~)(?=[{alpha}])"
        rf"|(?<=[{alpha}0-9])[:<>=/](?=[{alpha}])"
    )
    host = r"A-Za-z0-9\u00a1-\uffff"
    url = (
        r"(?:[\w+.-]{2,}://)?(?:\S+(?::\S*)?@)?(?:"
        r"(?!(?:10|127)(?:\.\d{1,3}){3})(?!(?:169\.254|192\.168)(?:\.\d{1,3}){2})"
        r"(?!172\.(?:1[6-9]|2\d|3[0-1])(?:\.\d{1,3}){2})"
        r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}"
        r"\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
        rf"|(?:(?:[{host}][{host}_-]{{0,62}})?[{host}]\.)+[{_of('LOWER')}]{{2,63}})"
        r"(?::[0-9]{2,5})?(?:[/?#]\S*)?\Z"
    )
    return words, sizes, [re.compile(rule) for rule in (prefix, suffix, infix, url)]


@lru_cache(maxsize=10_000)
def _run_twin(run: str) -> tuple[str, ...]:
    words, sizes, (prefix, suffix, infix, url) = _rules()
    front: list[str] = []
    back: list[str] = []
    while run and run not in words:
        found = prefix.match(run)
        size = found.end() if found else 0
        if size and run[size:] in words:
            front.append(run[:size])
            run = run[size:]
            break
        found = suffix.search(run[size:])
        tail = len(run) - size - found.start() if found else 0
        if tail and run[:-tail] in words:
            back.append(run[-tail:])
            run = run[:-tail]
            break
        if not size and not tail:
            break
        front += [run[:size]] * bool(size)
        back += [run[len(run) - tail :]] * bool(tail)
        run = run[size : len(run) - tail]
    middle = words.get(run) or ([run] if url.match(run) else _inside(run, infix))
    return tuple(_joined([*front, *middle, *reversed(back)], words, sizes))


def _inside(run: str, infix: re.Pattern[str]) -> list[str]:
    found, start = [], 0
    for match in infix.finditer(run):
        if match.start():
            found += [run[start : match.start()], match.group()]
            start = match.end()
    return [word for word in [*found, run[start:]] if word]


def _joined(pieces: list[str], words: dict[str, list[str]], sizes: dict[str, int]) -> list[str]:
    spans = [
        (i, i + size)
        for size in range(min(len(pieces), max(sizes.values())), 1, -1)
        for i in range(len(pieces) - size + 1)
        if sizes.get("".join(pieces[i : i + size])) == size
    ]
    seen: set[int] = set()
    chosen: dict[int, int] = {}
    for first, last in spans:
        if first not in seen and last - 1 not in seen:
            chosen[first] = last
        seen |= set(range(first, last))
    found, i = [], 0
    while i < len(pieces):
        last = chosen.get(i, i + 1)
        whole = "".join(pieces[i:last])
        found += words[whole] if i in chosen else [whole]
        i = last
    return found


def _twin(text: str) -> list[str]:
    return [word for run in text.split() for word in _run_twin(run)]

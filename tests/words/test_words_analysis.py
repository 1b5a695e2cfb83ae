from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.words import LANGUAGES
from penstock.words.analysis import Analyzer, analysis_version, stop_words


def terms(text: str, language: str = "english") -> list[tuple[str | None, list[str]]]:
    analyzer = Analyzer(language)
    analyzed = analyzer.analyze(pa.array([text], pa.large_string()))
    found = []
    for word in analyzed.columns[0].words.tolist():
        whole, parts = analyzed.terms(word)
        named = [analyzer.term(part).decode() for part in parts if part >= 0]
        found.append((analyzer.term(whole).decode() if whole >= 0 else None, named))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPServer2", [("httpserver2", ["http", "server", "2"])]),
        ("get_http_responses", [("gethttprespons", ["get", "http", "respons"])]),
        ("dataFrame", [("datafram", ["data", "frame"])]),
        ("__init__", [(None, ["init"])]),
        ("os.path", [(None, ["os"]), (None, ["path"])]),
        ("3.11.2", [("3.11.2", ["3", "11", "2"])]),
        ("1. One", [(None, ["1"]), (None, ["one"])]),
        ("URLs IDs", [(None, ["url"]), (None, ["id"])]),
        ("XMLParser", [("xmlparser", ["xml", "parser"])]),
        ("Running foxes", [(None, ["run"]), (None, ["fox"])]),
        ("3fa8b2c9d4", [(None, ["3fa8b2c9d4"])]),
        ("aGVsbG8gd29ybGQhIEhlbG", [(None, ["agvsbg8gd29ybgqhiehlbg"])]),
        ("user_s", [(None, ["user", "s"])]),
        ("东京塔", [("东京", []), (None, ["东"]), ("京塔", []), (None, ["京"]), (None, ["塔"])]),
        ("Straße ﬁne", [(None, ["strass"]), (None, ["fine"])]),
        ("cafe\u0301", [(None, ["café"])]),
        ("½", [(None, ["12"])]),
        ("👩\u200d💻 \u0301 _ ... \x00", []),
        ("", []),
        ("x" * 256, []),
        ("x" * 255, [(None, ["x" * 255])]),
    ],
)
def test_terms_of_a_text(text: str, expected: list[tuple[str | None, list[str]]]) -> None:
    assert terms(text) == expected


def test_small_letters_of_turkish_differ() -> None:
    assert terms("IŞIK İYİ", "turkish") == terms("ışık iyi", "turkish")
    assert terms("KAPI", "turkish") == terms("kapı", "turkish") != terms("kapi", "turkish")
    assert terms("KAPI", "none") == terms("kapi", "none")


def test_no_language_means_no_stemming() -> None:
    assert terms("Running foxes", "none") == [(None, ["running"]), (None, ["foxes"])]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_stemmer(language: str) -> None:
    assert terms("word", language)
    assert language in analysis_version(language)


def test_stop_words_are_function_words() -> None:
    assert {"the", "how", "t", "ll"} <= stop_words("english")
    assert not {"system", "don", "won"} & stop_words("english")
    assert "und" in stop_words("german")
    assert stop_words("none") == stop_words("basque") == frozenset()


def test_words_that_are_forgotten_come_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.words.analysis._MAX_WORDS", 2)
    analyzer = Analyzer("english")
    column = pa.array(["getName of a dataFrame in many words"], pa.large_string())

    def numbers() -> list[tuple[int, list[int]]]:
        analyzed = analyzer.analyze(column)
        return [analyzed.terms(word) for word in analyzed.columns[0].words.tolist()]

    first = numbers()

    assert numbers() == first
    assert len(first) == 7

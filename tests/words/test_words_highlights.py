from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.words import WordsSettings, highlights


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("The quick foxes", "fox", ["foxes"]),
        ("HTTPServer and server_name", "server", ["Server", "server"]),
        ("get_http_response", "getHttpResponse", ["get_http_response"]),
        ("the FileName", "filename", ["FileName"]),
        ("red fox, red hen", '"red fox"', ["red fox"]),
        ("red fox, red hen", '"red fox" hen', ["red fox", "hen"]),
        ("computing, computers", "compu*", ["computing", "computers"]),
        ("é 東京都 ü fox", "東京 fox", ["東京", "fox"]),
        ("version 3.11.2", "3.11.2", ["3.11.2"]),
        ("the fox of the hill", "the fox", ["fox"]),
        ("to be", "to be", ["to", "be"]),
        ("a\ud800 fox", "fox", ["fox"]),
        ("fox", "", []),
        ("", "fox", []),
        ("__init__ init", "init", ["init", "init"]),
        ("title: foxes", "title:fox", ["foxes"]),
    ],
    ids=repr,
)
def test_spans_of_what_matched(text: str, query: str, expected: list[str]) -> None:
    spans = highlights(text, query)

    assert [text[start:end] for start, end in spans] == expected


def test_language_of_highlights() -> None:
    german = WordsSettings(language="german")

    assert highlights("Häuser", "haus", german) == [(0, 6)]
    assert highlights("Häuser", "haus") == []


@settings(deadline=None)
@given(text=st.text(max_size=40), query=st.text(max_size=20))
def test_spans_are_ascending_and_apart(text: str, query: str) -> None:
    last = -1
    for start, end in highlights(text, query + " " + text[:9]):
        assert last < start < end <= len(text)
        last = end

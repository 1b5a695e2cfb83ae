from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zipfile

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.records import RAW
from penstock.steps.decode import decode

FRENCH = "Le café est très agréable à Noël, où l\u2019été s\u2019achève enfin."
GERMAN = "Größe und Maße der Straße: über 5 € für Äpfel."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю."
JAPANESE = "これは日本語のテキストです。文字コードを判定します。"
KOREAN = "한 글 로 쓴 짧은 글\n"
CHINESE = "这是一个中文文本文件，用于测试编码检测。"


def batch(*raw: bytes) -> pa.RecordBatch:
    names = [f"d{n}" for n in range(len(raw))]
    columns = [
        pa.array(names, pa.string()),
        pa.array(names, pa.string()),
        pa.array(raw, pa.large_binary()),
        pa.array(["text/plain"] * len(raw), pa.string()),
        pa.array(["{}"] * len(raw), pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW)


def outcome(*raw: bytes) -> list[str | tuple[str, str]]:
    """Each row's text, or its failure as (error,)."""
    text, keep, failures = decode(batch(*raw))
    text.validate(full=True)
    assert text.type == pa.large_string()
    assert len(text) == sum(keep.to_pylist())
    texts = iter(text.to_pylist())
    errors = {failure.doc_id: failure.error for failure in failures}
    return [
        next(texts) if kept else ("failed", errors[f"d{n}"])
        for n, kept in enumerate(keep.to_pylist())
    ]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"plain", "plain", id="ascii"),
        pytest.param(
            f"{FRENCH}{JAPANESE}\U0001f600".encode(), f"{FRENCH}{JAPANESE}\U0001f600", id="utf8"
        ),
        pytest.param(b" \n\t ", " \n\t ", id="only-blanks"),
        pytest.param(codecs.BOM_UTF8 + "é".encode(), "é", id="utf8-mark"),
        pytest.param(codecs.BOM_UTF8, "", id="only-a-mark"),
        pytest.param(codecs.BOM_UTF16_LE + FRENCH.encode("utf-16-le"), FRENCH, id="utf16-le-mark"),
        pytest.param(
            codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be"), CHINESE, id="utf16-be-mark"
        ),
        pytest.param(
            codecs.BOM_UTF32_LE + RUSSIAN.encode("utf-32-le"), RUSSIAN, id="utf32-le-mark"
        ),
        pytest.param(
            codecs.BOM_UTF32_BE + RUSSIAN.encode("utf-32-be"), RUSSIAN, id="utf32-be-mark"
        ),
        pytest.param(FRENCH.encode("utf-16-le"), FRENCH, id="utf16-le"),
        pytest.param(GERMAN.encode("utf-16-be"), GERMAN, id="utf16-be"),
        pytest.param(FRENCH.encode("utf-32-le"), FRENCH, id="utf32-le"),
        pytest.param(FRENCH.encode("utf-32-be"), FRENCH, id="utf32-be"),
        pytest.param(FRENCH.encode("cp1252"), FRENCH, id="cp1252"),
        pytest.param(GERMAN.encode("cp1252"), GERMAN, id="cp1252-german"),
        pytest.param("café".encode("latin-1"), "café", id="latin1-at-the-end"),
        pytest.param("naïve résumé".encode("latin-1"), "naïve résumé", id="latin1-short"),
        pytest.param(RUSSIAN.encode("cp1251"), RUSSIAN, id="cp1251"),
        pytest.param(RUSSIAN.encode("koi8-r"), RUSSIAN, id="koi8-r"),
        pytest.param(JAPANESE.encode("shift_jis"), JAPANESE, id="shift-jis"),
        pytest.param(JAPANESE.encode("euc_jp"), JAPANESE, id="euc-jp"),
        pytest.param(JAPANESE.encode("iso2022_jp"), JAPANESE, id="iso-2022-jp"),
        pytest.param(KOREAN.encode("iso2022_kr"), KOREAN, id="iso-2022-kr"),
        pytest.param(CHINESE.encode("gb18030"), CHINESE, id="gb18030"),
        pytest.param("模型训练数据".encode("gb18030"), "模型训练数据", id="gb18030-short"),
        pytest.param(
            b"\x1b[31mred\x1b[0m \x1b(B\n" * 3, "\x1b[31mred\x1b[0m \x1b(B\n" * 3, id="colours"
        ),
        pytest.param(b"% \\documentclass{article}", "% \\documentclass{article}", id="latex"),
        pytest.param(b"RIFF is four letters", "RIFF is four letters", id="magic-word-in-a-text"),
        pytest.param("\ufffd ok".encode(), "\ufffd ok", id="a-replacement-character"),
    ],
)
def test_text_is_told_by_its_bytes(data: bytes, text: str) -> None:
    assert outcome(data) == [text]


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", "empty-file", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "binary-file", id="png"),
        pytest.param(b"%PDF-1.4\n1 0 obj <<>> endobj", "binary-file", id="pdf-in-ascii"),
        pytest.param(_zip(), "binary-file", id="zip"),
        pytest.param(gzip.compress(b"text"), "binary-file", id="gzip"),
        pytest.param(b"\x7fELF\x02\x01\x01" + bytes(9), "binary-file", id="elf"),
        pytest.param(bytes(1000), "binary-file", id="nul-only"),
        pytest.param(bytes(range(256)) * 4, "binary-file", id="every-byte"),
        pytest.param(b"\x01\x02\x03\x04text" * 20, "binary-file", id="control-characters"),
        pytest.param(b"a text with one \0 in it, else fine", "nul-bytes", id="one-nul"),
        pytest.param("caf\u00e9 ".encode() * 5 + b"\xc3", "broken-encoding", id="cut-utf8"),
        pytest.param(
            FRENCH.encode() + b"\xff" + JAPANESE.encode(), "broken-encoding", id="one-bad-byte"
        ),
        pytest.param(JAPANESE.encode()[:-1], "broken-encoding", id="cut-in-a-character"),
        pytest.param(
            codecs.BOM_UTF8 + b"a\xe9b" + "é".encode(), "broken-encoding", id="after-a-mark"
        ),
        pytest.param(codecs.BOM_UTF16_LE + b"a\0b", "broken-encoding", id="odd-utf16"),
        pytest.param(codecs.BOM_UTF16_LE + b"\x00\xd8a\0b\0", "broken-encoding", id="half-a-pair"),
    ],
)
def test_what_is_no_text_is_reported(data: bytes, error: str) -> None:
    _, _, (failure,) = decode(batch(data))

    assert outcome(data) == [("failed", error)]
    assert failure.step == "decode"
    assert failure.advice
    assert not failure.transient


def test_a_broken_byte_is_told_with_its_place() -> None:
    data = "été ".encode() * 3 + b"\xff" + "été".encode()

    _, _, (failure,) = decode(batch(data))

    assert f"at byte {data.index(0xFF)}" in failure.message


def test_one_bad_row_costs_only_itself() -> None:
    found = outcome("é".encode(), b"", b"\xc3", b"\0\1\2\3", FRENCH.encode("cp1252"), b"\xa9 end")

    assert found[0] == "é"
    assert found[1] == ("failed", "empty-file")
    assert found[3] == ("failed", "binary-file")
    assert found[4] == FRENCH


def test_a_character_is_not_made_of_two_rows() -> None:
    both = outcome(b"plain \xc3", b"\xa9 plain")

    assert both == outcome(b"plain \xc3") + outcome(b"\xa9 plain")


def test_utf8_is_not_copied() -> None:
    raw = batch(b"one", "zwei é".encode())

    text, keep, failures = decode(raw)

    assert text.buffers()[2].address == raw["raw"].buffers()[2].address
    assert keep.to_pylist() == [True, True]
    assert failures == ()


@pytest.mark.parametrize("odd", [b"\x1b[1mbold", b"% LaTeX", b"page\x0cpage", "\ufb01".encode()])
def test_a_suspect_that_is_a_text_costs_no_copy(odd: bytes) -> None:
    raw = batch(b"one", odd, b"two")

    text, _, _ = decode(raw)

    assert text.buffers()[2].address == raw["raw"].buffers()[2].address


@given(st.lists(st.sampled_from([b"a", b"\x89PNG", b"\xef\xbb\xbfb", b"", b"\x1bc"]), max_size=40))
def test_odd_rows_are_put_back_in_their_place(rows: list[bytes]) -> None:
    texts = {b"a": "a", b"\xef\xbb\xbfb": "b", b"\x1bc": "\x1bc"}
    errors = {b"": "empty-file", b"\x89PNG": "binary-file"}

    assert outcome(*rows) == [texts.get(row) or ("failed", errors[row]) for row in rows]


def test_no_rows_are_no_rows() -> None:
    assert outcome() == []


def test_a_late_foreign_character_in_a_large_file_is_found() -> None:
    plain = b"a line of plain text\n" * 50_000
    text = plain.decode() + FRENCH

    assert outcome(text.encode("cp1252")) == [text]


_ROWS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"", b"\xef\xbb\xbfa", b"%PDF-", FRENCH.encode("cp1252"), b"\x1b$B", b"a\0"]),
)


@given(st.lists(_ROWS, max_size=5), st.integers(0, 3), st.integers(0, 3))
def test_a_row_does_not_depend_on_its_neighbours(
    rows: list[bytes], before: int, after: int
) -> None:
    alone = [found for row in rows for found in outcome(row)]

    assert outcome(*rows) == alone
    whole = batch(*([b"x"] * before + rows + [b"\xff"] * after))
    text, keep, _ = decode(whole.slice(before, len(rows)))
    assert text.to_pylist() == [found for found in alone if isinstance(found, str)]
    assert len(keep) == len(rows)


@given(st.text(min_size=1))
def test_utf8_text_comes_back_as_it_is(text: str) -> None:
    plain = text.replace("\ufeff", "").translate(dict.fromkeys(range(32)))
    if plain and not plain.startswith("%PDF-") and "\x7f" not in plain:
        assert outcome(plain.encode()) == [plain]


def test_random_bytes_are_never_a_crash() -> None:
    for size in (1, 2, 3, 10, 1000, 5000):
        for _ in range(20):
            (found,) = outcome(os.urandom(size))
            assert isinstance(found, str) or found[1] in (
                "binary-file",
                "broken-encoding",
                "nul-bytes",
            )


def test_json_text_with_an_escaped_nul_is_reported() -> None:
    assert outcome(json.loads('"a text \\u0000 of JSON"').encode()) == [("failed", "nul-bytes")]

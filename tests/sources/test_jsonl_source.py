from __future__ import annotations

import functools
import gzip
import io
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.protocols import Source
from penstock.sources import _blocks, _json_lines, jsonl
from penstock.sources._blocks import blocks
from penstock.sources._columns import Columns, titled
from penstock.sources._json_lines import parse_block, parse_clean, parse_lines
from penstock.sources._local import LocalFolder

Everything = Callable[[Source], Any]

BEIR = Columns("_id", "title", "text", None)


def lines(*rows: Any) -> bytes:
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows
    )


@functools.cache
def rows_of(count: int) -> bytes:
    return lines(*({"_id": f"d{n}", "text": f"text {n * 7919}"} for n in range(count)))


def test_the_defaults_are_the_layout_of_beir(tmp_path: Path, everything: Everything) -> None:
    data = lines(
        {"_id": "1", "title": "One", "text": "first", "metadata": {"url": "u"}, "year": 1999},
        {"_id": "2", "title": "", "text": "second", "metadata": {}},
        {"_id": "3", "text": "third", "none": None},
    )
    (tmp_path / "corpus.jsonl").write_bytes(data)

    found = everything(jsonl(tmp_path / "corpus.jsonl"))

    assert found.raw == {"1": b"One\n\nfirst", "2": b"second", "3": b"third"}
    assert found.metadata == {
        "1": {"title": "One", "metadata": {"url": "u"}, "year": 1999},
        "2": {"title": "", "metadata": {}},
        "3": {},
    }
    assert {row["item"] for row in found.rows} == {"corpus.jsonl"}
    assert {row["media_type"] for row in found.rows} == {"text/plain"}
    assert found.finished == found.listed


def test_columns_are_chosen_by_name(tmp_path: Path, everything: Everything) -> None:
    row = {"key": 7, "headline": "H", "body": "b", "a": 1, "b": [1, {"c": None}], "title": "t"}
    (tmp_path / "a.ndjson").write_bytes(lines(row))
    path = tmp_path / "a.ndjson"

    named = everything(jsonl(path, id="key", title="headline", text="body", metadata=["b", "x"]))
    rest = everything(jsonl(path, id="key", title="headline", text="body", media_type="text/html"))
    plain = everything(jsonl(path, id=None, title=None, text="body", metadata=()))

    assert named.raw == {"7": b"H\n\nb"}
    assert named.metadata == {"7": {"b": [1, {"c": None}]}}
    assert rest.metadata == {"7": {"a": 1, "b": [1, {"c": None}], "title": "H"}}
    assert rest.rows[0]["media_type"] == "text/html"
    assert plain.raw == {"a.ndjson:1": b"b"}
    assert plain.metadata == {"a.ndjson:1": {}}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"id": ""}, id="empty-id"),
        pytest.param({"text": None}, id="no-text"),
        pytest.param({"title": 3}, id="number"),
        pytest.param({"metadata": ["a", ""]}, id="empty-name"),
        pytest.param({"id": "text"}, id="id-is-text"),
        pytest.param({"media_type": "plain"}, id="media-type"),
    ],
)
def test_a_wrong_setting_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        jsonl("a.jsonl", **settings)


def test_a_folder_holds_its_files_in_order(tmp_path: Path, everything: Everything) -> None:
    for name in ("b.jsonl", "a.ndjson", "sub/c.jsonl", "d.json", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines({"_id": name, "text": "x"}))
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(lines({"_id": "f", "text": "x"})))
    (tmp_path / "g.json.gz").write_bytes(gzip.compress(lines({"_id": "g", "text": "x"})))
    (tmp_path / "h.JSONL.zst").write_bytes(zstandard.compress(lines({"_id": "h", "text": "x"})))
    (tmp_path / ".gitignore").write_text("*.jsonl\n")  # data is often ignored, and still meant

    found = everything(jsonl(tmp_path))

    assert found.ids == ["a.ndjson", "b.jsonl", "f", "g", "h", "sub/c.jsonl"]
    assert everything(jsonl(tmp_path / "*.txt")).ids == ["e.txt"]
    assert everything(jsonl(tmp_path / "d.json")).ids == ["d.json"]
    assert found.finished == found.listed


def test_a_source_is_a_picklable_value(tmp_path: Path) -> None:
    source = jsonl(tmp_path, metadata="a")

    assert isinstance(source, Source)
    assert source.metadata == ("a",)
    assert pickle.loads(pickle.dumps(source)) == source


BAD_LINES = [
    pytest.param(b'{"_id": "x", "text": ', "malformed-json", id="cut"),
    pytest.param(b"[1, 2]", "malformed-json", id="a-list"),
    pytest.param(b"nonsense", "malformed-json", id="nonsense"),
    pytest.param(b'{"_id": "x", "text": "a"} {}', "malformed-json", id="two-objects"),
    pytest.param(b'{"_id": "x", "text": "a", "b": NaN}', "malformed-json", id="not-a-number"),
    pytest.param(b'{"_id": "x", "text": "a\0b"}', "malformed-json", id="nul-byte"),
    pytest.param(b"\0\0\0\0", "malformed-json", id="nul-bytes-only"),
    pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed-json", id="deep"),
    pytest.param(b'{"text": "a"}', "missing-id", id="no-id"),
    pytest.param(b'{"_id": null, "text": "a"}', "missing-id", id="null-id"),
    pytest.param(b'{"_id": "", "text": "a"}', "missing-id", id="empty-id"),
    pytest.param(b'{"_id": [1], "text": "a"}', "missing-id", id="list-for-an-id"),
    pytest.param(b'{"_id": "x", "body": "a"}', "missing-column", id="no-text"),
    pytest.param(b'{"_id": "x", "text": null}', "missing-column", id="null-text"),
    pytest.param(b'{"_id": "x", "text": 3}', "missing-column", id="number-for-a-text"),
    pytest.param(b'{"_id": "x", "text": "\xff"}', "broken-encoding", id="not-utf8"),
    pytest.param(b'{"_id": "x", "text": "\\ud800"}', "broken-encoding", id="half-a-pair"),
    pytest.param(b'{"_id": "\\udc00", "text": "a"}', "broken-encoding", id="half-in-the-id"),
    pytest.param(b'{"_id": "x", "text": "a", "m": "\\ud800"}', "broken-encoding", id="half-beside"),
]


@pytest.mark.parametrize(("line", "error"), BAD_LINES)
def test_a_bad_line_costs_its_own_row(
    tmp_path: Path, everything: Everything, line: bytes, error: str
) -> None:
    good = {"_id": "good", "text": "a"}
    (tmp_path / "a.jsonl").write_bytes(lines(good, b"", line, {"_id": "after", "text": "b"}))

    found = everything(jsonl(tmp_path))

    assert found.ids == ["good", "after"]
    assert found.errors == [("a.jsonl:3", error)]
    assert not found.failures[0].transient
    assert found.failures[0].item == "a.jsonl"
    assert found.failures[0].advice
    assert found.finished == found.listed


def test_a_missing_column_lists_what_there_is(tmp_path: Path, everything: Everything) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"_id": "1", "body": "b", "lang": "en"}))

    (failure,) = everything(jsonl(tmp_path)).failures

    assert "'body'" in failure.message
    assert "'lang'" in failure.message


@pytest.mark.parametrize(
    ("value", "doc_id"),
    [
        pytest.param("a b", "a b", id="string"),
        pytest.param(12, "12", id="number"),
        pytest.param(0, "0", id="zero"),
        pytest.param(-(2**70), str(-(2**70)), id="large"),
        pytest.param(1.5, "1.5", id="float"),
        pytest.param(True, "true", id="bool"),
        pytest.param(False, "false", id="false"),
    ],
)
def test_any_scalar_is_an_id(value: Any, doc_id: str) -> None:
    rows, failures = parse_block("a", lines({"_id": value, "text": "x"}), 1, BEIR, "text/plain")

    assert rows["doc_id"].to_pylist() == [doc_id]
    assert failures == ()


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"\n\n  \n\r\n", [], id="blank-lines"),
        pytest.param(b"\xef\xbb\xbf" + rows_of(2), ["d0", "d1"], id="byte-order-mark"),
        pytest.param(rows_of(2).replace(b"\n", b"\r\n"), ["d0", "d1"], id="dos"),
        pytest.param(rows_of(2).rstrip(), ["d0", "d1"], id="no-line-end-at-the-end"),
        pytest.param(b"  " + rows_of(1), ["d0"], id="blanks-before"),
        pytest.param(lines({"_id": "n", "text": "a\0b"}), ["n"], id="escaped-nul"),
        pytest.param(lines({"_id": "e", "text": "\U0001f600"}), ["e"], id="escaped-pair"),
    ],
)
def test_unusual_files_are_read(
    tmp_path: Path, everything: Everything, data: bytes, ids: list[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)

    found = everything(jsonl(tmp_path))

    assert (found.ids, found.failures, found.finished) == (ids, [], found.listed)


def test_a_file_in_utf16_is_one_failure(tmp_path: Path, everything: Everything) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows_of(5).decode().encode("utf-16"))

    found = everything(jsonl(tmp_path))

    assert found.errors == [("a.jsonl", "broken-encoding")]
    assert found.finished == found.listed


PACKED = [
    pytest.param("gz", gzip.compress, id="gzip"),
    pytest.param("zst", zstandard.compress, id="zstd"),
]


@pytest.mark.parametrize(("ending", "pack"), PACKED)
def test_packed_files_are_read_whole(
    tmp_path: Path, everything: Everything, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    data = rows_of(3000)
    half = data.index(b"\n", len(data) // 2) + 1
    (tmp_path / f"a.jsonl.{ending}").write_bytes(pack(data[:half]) + pack(data[half:]))

    found = everything(jsonl(tmp_path))

    assert found.ids == [f"d{n}" for n in range(3000)]
    assert found.failures == []
    assert found.finished == found.listed


@pytest.mark.parametrize(("ending", "pack"), PACKED)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_what_comes_before_a_cut_is_kept(
    tmp_path: Path,
    everything: Everything,
    ending: str,
    pack: Callable[[bytes], bytes],
    share: float,
) -> None:
    packed = pack(rows_of(60_000))
    (tmp_path / f"a.jsonl.{ending}").write_bytes(packed[: int(len(packed) * share)])

    found = everything(jsonl(tmp_path))

    assert found.errors == [(f"a.jsonl.{ending}", "truncated")]
    assert not found.failures[0].transient
    assert found.ids == [f"d{n}" for n in range(len(found.ids))]
    assert len(found.ids) >= 60_000 * (share - 0.15)
    assert len(found.ids) < 60_000
    assert found.finished == found.listed
    assert f"before line {len(found.ids) + 1} were kept" in found.failures[0].message


@pytest.mark.parametrize(("ending", "pack"), PACKED)
def test_what_comes_before_a_corrupt_byte_is_kept(
    tmp_path: Path, everything: Everything, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    whole = pack(rows_of(20_000))
    packed = bytearray(whole)
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(byte ^ 0x55 for byte in packed[middle : middle + 64])
    (tmp_path / f"a.jsonl.{ending}").write_bytes(packed)

    found = everything(jsonl(tmp_path))

    assert (f"a.jsonl.{ending}", "truncated") in found.errors
    assert found.ids[:50] == [f"d{n}" for n in range(50)]
    assert found.finished == found.listed


def test_lines_right_before_a_corrupt_byte_are_kept(tmp_path: Path, everything: Everything) -> None:
    packed = bytearray(gzip.compress(rows_of(1000)))
    at = len(packed) * 2 // 3
    packed[at : at + 64] = b"\xff" * 64
    (tmp_path / "a.jsonl.gz").write_bytes(packed)

    found = everything(jsonl(tmp_path))

    assert found.ids[:500] == [f"d{n}" for n in range(500)]


def test_a_file_that_only_claims_to_be_packed(tmp_path: Path, everything: Everything) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(rows_of(2))
    (tmp_path / "b.jsonl.gz").write_bytes(b"<html>404</html>\n" * 50)
    (tmp_path / "c.jsonl.zst").write_bytes(b"")

    found = everything(jsonl(tmp_path))

    assert found.ids == ["d0", "d1"]
    assert found.errors == [("b.jsonl.gz", "truncated"), ("c.jsonl.zst", "truncated")]


def test_an_error_while_reading_keeps_what_came_before(tmp_path: Path) -> None:
    class Failing:
        def __init__(self) -> None:
            self.calls = 0

        def read(self, size: int) -> bytes:
            self.calls += 1
            if self.calls > 2:
                raise OSError(5, "Input/output error")
            return rows_of(10)[: 4 if self.calls == 1 else None][4 * (self.calls - 1) :]

    (block,) = blocks(Failing(), "a.jsonl")  # type: ignore[arg-type]

    assert block.data == rows_of(10)
    assert isinstance(block.damage, OSError)


@given(
    data=st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\n\n", b"e" * 9])).map(b"".join),
    size=st.integers(1, 20),
)
def test_blocks_are_the_file_cut_at_line_ends(data: bytes, size: int) -> None:
    found = list(blocks(io.BytesIO(data), "a", size))

    assert b"".join(block.data for block in found) == data
    assert [block.last for block in found] == [False] * (len(found) - 1) + [True]
    line = 1
    for block in found:
        assert block.first_line == line
        assert block.last or block.data.endswith(b"\n")
        line += block.data.count(b"\n")


def test_a_single_line_of_200_mb_is_one_row(tmp_path: Path) -> None:
    size = 200 << 20
    with open(tmp_path / "a.jsonl", "wb") as file:
        file.write(b'{"_id": "long", "text": "')
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + rows_of(1))
    source = jsonl(tmp_path)
    start = time.monotonic()

    reads = [source.read(task) for task in source.tasks(["a.jsonl"])]

    assert time.monotonic() - start < 30
    rows = [
        row for read in reads for row in zip(read.rows["doc_id"], read.rows["raw"], strict=True)
    ]
    assert [(doc_id.as_py(), len(raw.as_buffer())) for doc_id, raw in rows] == [
        ("long", size),
        ("d0", 6),
    ]


# Pieces of JSON that two parsers may read in two ways.
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(
        ["2020-01-01", "2021-05-06T07:08:09Z", "12:30", "\0", "\ud800", '"\\', "é\x7f"]
    ),
)
_NESTED = st.one_of(
    _VALUES,
    st.lists(_VALUES, max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), _VALUES, max_size=2),
)
_OBJECTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("_id", "title", "text", "a", "x.y", "é", "date"), _NESTED)
)
_CLEAN = st.fixed_dictionaries(
    {"_id": st.text(min_size=1, max_size=3) | st.integers(), "text": st.text(max_size=9)},
    optional={
        "title": st.text(max_size=3),
        "date": st.sampled_from(["2020-01-01", "x"]),
        "n": st.integers(-9, 2**64) | st.booleans(),
        "meta": st.fixed_dictionaries({}, optional={"u": st.sampled_from(["v", "2020-01-01"])}),
    },
)
_ODD = st.sampled_from(
    [
        b"",
        b" ",
        b'{"_id":"1","text":"a"}{"_id":"2","text":"b"}',
        b'{"_id":"1","text":"a",',
        b'"x":1}',
        b'{"_id":"1","text":"a","text":"b"}',
        b'{"_id":"1","text":"a","n":-0}',
        b'{"_id":-0,"text":"a"}',
        b'{"_id":"1","text":"a","n":1e999}',
        b'{"_id":"1","text":"a","n":1.0}',
        b'{"_id":"1","text":"a","n":NaN}',
        b'{"_id":"1","text":"a","n":[-Inf, 1]}',
        b'{"_id":"1","text":", Information [Inf"}',
        b'{"_id":"1","text":"\xff"}',
        b'{"_id":"1","text":"\x01"}',
        b'{"_id":"1","text":"a"}\r',
        b'\x0b{"_id":"1","text":"a"}',
        b'{"_id":"1","text":"a","n":' + b"9" * 5000 + b"}",
        b'{"_id":"1","text":"\\u00e9\\ud83d\\ude00"}',
        b"{}",
        b'{"_id":"1","text":"\\ud83d"}',
        b'{"_id":"1","text":"\\ude00\\ud83d"}',
        b'{"_id":"1","text":"\\x"}',
        b'{"_id":"1","text":"\\u12G4"}',
        b'{"_id":"1","te\\u0078t":"a"}',
        b'{"_id":"1","text":"a","te\\u0078t":"b"}',
        b'{"_id":"1","a":{"text":"in"},"text":"out"}',
        b'{"_id":"1","a":"text","text":"out"} ',
        b'{"_id":"1","text":["text"]}',
        b'{"_id":"1","text":"a" "b"}',
        b'{"_id":"1","text"::"a"}',
        b'{"_id":"1" "text":"a"}',
        b'{"_id":"1","a":[1,2},"text":"a"}',
        b'{"_id":"1","text":"a"]',
        b'{"text":"a","_id":"1",}',
    ]
)


def _encoded(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode()


@given(
    rows=st.lists(_CLEAN.map(_encoded), max_size=4)
    | st.lists(_OBJECTS.map(_encoded) | _CLEAN.map(_encoded) | _ODD, max_size=4),
    columns=st.sampled_from(
        [
            BEIR,
            Columns(None, "title", "text", None),
            Columns("_id", None, "text", ()),
            Columns("_id", "date", "text", ("a", "title", "n")),
            Columns("a", "a", "text", None),
            Columns("_id", "title", "text", ("text",)),
            Columns("_id", "text", "title", None),
        ]
    ),
    first=st.integers(1, 3),
)
@example(
    rows=[b'{"_id":"1","text":"a","m":{"u":"v"}}', b'{"_id":"2","text":"b","m":{}}'],
    columns=BEIR,
    first=1,
)
def test_both_ways_of_parsing_agree(rows: list[bytes], columns: Columns, first: int) -> None:
    data = b"\n".join(rows)

    fast = parse_clean("item", data, first, columns, "text/plain")

    slow, failures = parse_lines("item", data, first, columns, "text/plain")
    slow.validate(full=True)
    if fast is not None:
        fast.validate(full=True)
        assert fast.to_pylist() == slow.to_pylist()
        assert failures == ()


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({}, id="alone"),
        pytest.param({"metadata": {}}, id="empty-object"),
        pytest.param(
            {"metadata": {"url": "u", "on": "2020-01-01"}, "n": 3, "b": True}, id="beside"
        ),
    ],
)
@pytest.mark.parametrize("first_id", ["a", 1])
def test_clean_blocks_take_the_fast_way(extra: dict[str, Any], first_id: Any) -> None:
    data = lines(*({"_id": first_id, "title": "t", "text": "x", **extra} for _ in range(3)))

    assert parse_clean("item", data, 1, BEIR, "text/plain") is not None


def test_brackets_in_a_text_are_no_nesting() -> None:
    text = "f([{" * 500 + '\\"'
    data = lines({"_id": "1", "title": "]" * 100, "text": text})

    found = parse_clean("item", data, 1, BEIR, "text/plain")

    assert found is not None
    assert found["raw"].to_pylist() == [f"{']' * 100}\n\n{text}".encode()]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"text":"","n":' + b"[" * 100 + b"]" * 100 + b"}", id="deep"),
        pytest.param(b'{"text":"","n":"\0"}', id="nul"),
        pytest.param(b'{"text":"","n":"\\\0"}', id="nul-after-a-backslash"),
        pytest.param(b'{"text":"","n": NaN }', id="constant"),
        pytest.param(b'{"text":"","n":"\xff"}', id="not-utf8"),
        pytest.param(b'{"text":"\xff"}', id="not-utf8-in-the-text"),
        pytest.param(b'{"text":""}\n\n{"text":""}', id="blank-line"),
        pytest.param(b'{"text":""\n}', id="over-two-lines"),
        pytest.param(b'{"text":""}{"text":""}', id="two-on-a-line"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_arrow_reads_otherwise_never_reaches_it(line: bytes) -> None:
    assert _json_lines._lifted(b'{"text":""}\n', "text") is not None
    assert _json_lines._lifted(line, "text") is None


@pytest.mark.parametrize(
    "titles",
    [
        pytest.param([{}], id="absent"),
        pytest.param([{"title": ""}, {"title": None}, {}], id="empty"),
    ],
)
def test_texts_without_titles_are_not_copied(titles: list[dict[str, Any]]) -> None:
    text = pa.array(["one", "two", "three"][: len(titles)], pa.large_string())
    title = pa.array([row.get("title") for row in titles], pa.string())

    assert titled(title, text).buffers()[2].address == text.buffers()[2].address


def test_short_blocks_are_read_without_a_kernel() -> None:
    code = (
        "import sys; from penstock.sources._columns import Columns\n"
        "from penstock.sources._json_lines import parse_block\n"
        'data = b\'{"text": "a"}\\n\' * 9\n'
        "rows, _ = parse_block('item', data, 1, Columns(None, None, 'text', None), 'text/plain')\n"
        "print(rows.num_rows, 'numba' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["9", "False"]


def test_both_ways_of_parsing_agree_on_a_large_block() -> None:
    data = lines(
        *(
            {"_id": f"d{n}", "title": "t" * (n % 2), "text": f"é\n{n} \U0001f600" * n, "n": n}
            for n in range(300)
        )
    )
    assert len(data) > _json_lines._MIN_BLOCK_BYTES

    rows, failures = parse_block("item", data, 1, BEIR, "text/plain")

    assert rows.equals(parse_lines("item", data, 1, BEIR, "text/plain")[0])
    assert failures == ()


def test_a_file_system_may_raise_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise RuntimeError("throttled")

    monkeypatch.setattr(LocalFolder, "open", lambda *args: (Failing(), "1:1"))
    (tmp_path / "a.jsonl").write_bytes(rows_of(1))
    source = jsonl(tmp_path)

    (task,) = source.tasks(["a.jsonl"])

    (failure,) = source.read(task).failures
    assert (failure.error, failure.transient) == ("unreadable", True)
    assert "throttled" in failure.message


def test_a_bomb_is_unpacked_in_small_steps() -> None:
    packed = gzip.compress(b"\n" * (64 << 20))

    sizes = [len(block.data) for block in blocks(io.BytesIO(packed), "a.gz")]

    assert sum(sizes) == 64 << 20
    assert max(sizes) <= _blocks.BLOCK_BYTES + 1100 * _blocks._GZIP_STEP

"""The commands as a user runs them: output, exit status, errors in one line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.build import load_flow

pytestmark = pytest.mark.slow

_WORDS_FLOW = """
import penstock as ps

def flow(source):
    return ps.Flow(source=ps.files(source), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()])
"""


class _Done:
    """A command that ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def penstock(*arguments: object, cwd: Path | None = None) -> _Done:
    code = "from penstock.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return _Done(subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False))


@pytest.fixture
def words_flow(tmp_path: Path) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(_WORDS_FLOW)
    return path


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "start.md").write_text("# Start\n\nInstall the tool, then run a build.\n")
    (folder / "tool.py").write_text("def resume_run(state):\n    return state\n")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "build",
        "watch",
        "init",
        "search",
        "status",
        "sample",
        "dedup-report",
        "decontaminate-report",
        "failures",
        "runs",
        "forget",
        "eval",
        "tune",
        "index",
    ],
    ids=str,
)
def test_every_command_has_help(command: str) -> None:
    done = penstock(command, "--help")

    assert done.status == 0
    assert "Usage: " in done.out


def test_build_search_and_build_again(docs: Path, words_flow: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"

    first = penstock("build", docs, store, "--flow", words_flow, "--json")
    again = penstock("build", docs, store, "--flow", words_flow)
    found = penstock("search", store, "resume a run", "-k", 1, "--json")

    assert (first.status, first.json["documents"], first.json["chunks"]) == (0, 2, 2)
    assert [json.loads(line) for line in first.err.splitlines()]
    assert "2 listed, 0 read, 2 unchanged" in again.out
    assert [hit["doc_id"] for hit in found.json["hits"]] == ["tool.py"]


def test_the_default_flow_embeds_and_searches_both_ways(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"

    built = penstock("build", docs, store, "--quiet")
    hits = penstock("search", store, "setting it up", "--json").json["hits"]

    assert (built.status, built.err) == (0, "")
    assert hits[0]["doc_id"] == "start.md"
    assert hits[0]["vector_score"] > 0.2


def test_search_prints_where_the_hit_stands(docs: Path, words_flow: Path, tmp_path: Path) -> None:
    penstock("build", docs, tmp_path / "store", "--flow", words_flow)

    done = penstock("search", tmp_path / "store", "install", "--where", "extension = 'md'")

    assert "start.md > Start" in done.out
    assert "Install the tool, then run a build." in done.out


def test_status_runs_and_failures_tell_what_a_store_holds(
    docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    (docs / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    store = tmp_path / "store"
    penstock("build", docs, store, "--flow", words_flow)
    penstock("build", docs, store, "--flow", words_flow)

    status, runs, failures = (penstock(name, store) for name in ("status", "runs", "failures"))

    assert "2 documents, 2 kept; 2 chunks; 1 failures" in status.out
    assert [line.split()[0] for line in runs.out.splitlines()] == ["run", "000001", "000002"]
    assert "a.png" in failures.out
    assert "binary-file" in failures.out
    assert penstock("status", store, "--json").json["funnel"][2]["failed"] == 1
    assert penstock("failures", store, "--json").json[0]["advice"]
    assert len(penstock("runs", store, "--json").json) == 2


def test_strict_makes_a_failed_row_an_exit_status(
    docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    (docs / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    command = ("build", docs, tmp_path / "store", "--flow", words_flow)

    assert penstock(*command).status == 0
    assert penstock(*command, "--strict").status == 1


def test_init_writes_a_flow_that_builds(docs: Path, tmp_path: Path) -> None:
    written = penstock("init", cwd=tmp_path)
    again = penstock("init", cwd=tmp_path)
    built = penstock("build", docs, tmp_path / "store", "--flow", tmp_path / "flow.py")

    assert written.status == 0
    assert (again.status, "exists already" in again.err) == (2, True)
    assert built.status == 0


def test_eval_prints_the_metrics_of_a_judged_set(tmp_path: Path) -> None:
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(_TEXTS)]
    corpus = tmp_path / "corpus.jsonl.gz"
    corpus.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "red apple"}\n{"_id": "q2", "text": "boats"}\n'
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td2\t1\n")
    (tmp_path / "flow.py").write_text(_WORDS_FLOW.replace("ps.files", "ps.jsonl"))
    penstock("build", corpus, tmp_path / "store", "--flow", tmp_path / "flow.py")

    options = ("--queries", tmp_path / "queries.jsonl", "--qrels", tmp_path / "qrels.tsv")
    done = penstock("eval", tmp_path / "store", *options, "--json")

    assert done.json["queries"] == 2
    assert done.json["ndcg@10"] == done.json["mrr@10"] == done.json["recall@100"] == 1.0


def test_what_search_must_be_worth_is_an_exit_status_of_eval_and_a_gate_of_build(
    docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    judged = tmp_path / "judged"
    (judged / "qrels").mkdir(parents=True)
    (judged / "queries.jsonl").write_text('{"_id": "q1", "text": "install"}\n')
    (judged / "qrels/dev.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\tstart.md\t1\nq1\tnone\t1\n"
    )
    store = tmp_path / "store"
    build = ("build", docs, store, "--flow", words_flow, "--judgements", judged)
    options = ("--queries", judged / "queries.jsonl", "--qrels", judged / "qrels/dev.tsv")

    first = penstock(*build, "--require", "map>=0.5", "--require", "mrr@10>=1")
    fine = penstock("eval", store, *options, "--require", "map>=0.5", "--json")
    poor = penstock("eval", store, *options, "--require", "map>=0.75")
    refused = penstock(*build, "--require", "map>=0.75")

    assert (first.status, first.err.count("penstock:")) == (0, 0)
    assert (fine.status, fine.json["missed"]) == (0, [])
    assert (poor.status, "map>=0.75 does not hold: 0.2500 below" in poor.err) == (1, True)
    assert refused.status == 1
    assert "map is 0.5000, 0.2500 below the 0.75 required" in refused.err
    assert len(penstock("runs", store, "--json").json) == 1


_TEXTS = ["A red apple on a tree.", "A green pear.", "Two boats at sea."]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["build", "nowhere", "store"], "nowhere", id="wrong-source"),
        pytest.param(["search", "nowhere", "x"], "no store here", id="no-store"),
        pytest.param(["build", ".", "store", "--flow", "none.py"], "penstock init", id="no-flow"),
        pytest.param(["build", ".", "file"], "not a folder", id="store-is-a-file"),
        pytest.param(["status", "file"], "no store here", id="status-of-a-file"),
    ],
)
def test_a_wrong_call_is_one_clear_error(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = penstock(*arguments, cwd=tmp_path)

    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("penstock: ")
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--where", "nope = 1"], "there is no such column; there are", id="column"),
        pytest.param(["--where", "doc_id ="], "doc_id =", id="syntax"),
        pytest.param(["--where", "length(doc_id) > 1"], "length()", id="function"),
        pytest.param(["--mode", "vector"], "no embeddings", id="no-vectors"),
        pytest.param(["--run", "9"], "no run 000009", id="run"),
    ],
)
def test_a_wrong_search_is_one_clear_error(
    options: list[str], says: str, docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    penstock("build", docs, tmp_path / "store", "--flow", words_flow)

    done = penstock("search", tmp_path / "store", "x", *options)

    assert done.status == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_every_kind_of_bad_input_costs_its_own_row(words_flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "good.txt").write_text("A good text.\n")
    (folder / "empty.txt").touch()
    (folder / "nul.txt").write_bytes(b"some text\x00 with a NUL\n")
    (folder / "broken.txt").write_bytes("gut für alle, größer, schöner ".encode() * 9 + b"\xc3")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "none")
    os.mkfifo(folder / "fifo")
    (folder / os.fsdecode(b"na\xefve.txt")).write_text("A name that is not UTF-8.\n")

    done = penstock("build", folder, tmp_path / "store", "--flow", words_flow)
    rows = penstock("failures", tmp_path / "store", "--json").json

    assert done.status == 0
    assert f"failures   {len(rows)}" in done.out
    assert {row["doc_id"]: row["error"] for row in rows} == {
        "empty.txt": "empty-file",
        "nul.txt": "nul-bytes",
        "broken.txt": "broken-encoding",
        "picture.png": "binary-file",
        "loop": "directory-loop",
        "dangling": "broken-link",
        "fifo": "not-a-regular-file",
        "na\\xefve.txt": "name-not-utf8",
    }
    assert all(row["advice"] for row in rows)
    assert penstock("status", tmp_path / "store", "--json").json["documents"] == 1


def test_bad_rows_of_tables_cost_their_own_row(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(_WORDS_FLOW.replace("ps.files", "ps.jsonl"))
    folder = tmp_path / "rows"
    folder.mkdir()
    good = '{"_id": "%s", "text": "Text %s."}\n'
    (folder / "a.jsonl").write_bytes(
        (good % (1, 1)).encode() + b'{"_id": "2"}\n{not json\n{"_id": "3", "text": "\xff\xfe"}\n'
    )
    whole = gzip.compress("".join(good % (f"g{i}", i) for i in range(5000)).encode())
    (folder / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])

    done = penstock("build", folder, tmp_path / "store", "--flow", tmp_path / "flow.py")
    rows = penstock("failures", tmp_path / "store", "--json").json

    assert done.status == 0
    assert [(row["doc_id"], row["error"]) for row in rows] == [
        ("a.jsonl:2", "missing-column"),
        ("a.jsonl:3", "malformed-json"),
        ("a.jsonl:4", "broken-encoding"),
        ("b.jsonl.gz", "truncated"),
    ]
    assert penstock("status", tmp_path / "store", "--json").json["documents"] > 100


def test_sample_shows_what_a_rule_dropped_and_what_was_kept(
    docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    (docs / "again.md").write_text((docs / "start.md").read_text())
    penstock("build", docs, tmp_path / "store", "--flow", words_flow)

    shown = penstock("sample", tmp_path / "store", "--rule", "exact_duplicate")
    as_json = penstock("sample", tmp_path / "store", "--json")
    unknown = penstock("sample", tmp_path / "store", "--rule", "gopher")
    status = penstock("status", tmp_path / "store")

    assert "start.md  exact_duplicate" in shown.out
    assert "kept instead: again.md" in shown.out
    assert [row["duplicate_of"] for row in as_json.json] == ["again.md"]
    assert (unknown.status, "there are exact_duplicate" in unknown.err) == (2, True)
    assert "exact_duplicate" in status.out


@pytest.mark.parametrize("preset", ["search", "fineweb", "code"])
def test_every_preset_is_a_flow(preset: str, tmp_path: Path) -> None:
    done = penstock("init", tmp_path / "flow.py", "--preset", preset)

    assert done.status == 0, done.err
    assert load_flow(tmp_path / "flow.py", "docs").plan().chain


def test_the_dedup_report_tells_what_thresholds_would_do(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    words = [f"word{i}" for i in range(60)]
    for i in range(4):
        (tmp_path / f"docs/{i}.txt").write_text(" ".join(["start", *words, "end"][: 62 - i]))
    (tmp_path / "docs/exact.txt").write_text((tmp_path / "docs/0.txt").read_text())
    flow = (
        "ps.Flow(source=ps.files(source), steps=[ps.ExactDedup(), ps.MinHashDedup(threshold=0.7)])"
    )
    (tmp_path / "flow.py").write_text(
        f"import penstock as ps\n\ndef flow(source):\n    return {flow}\n"
    )
    penstock("build", tmp_path / "docs", tmp_path / "store", "--flow", tmp_path / "flow.py")

    shown = penstock("dedup-report", tmp_path / "store", "--svg", tmp_path / "curve.svg")
    facts = penstock("dedup-report", tmp_path / "store", "--json").json
    other = penstock("dedup-report", tmp_path / "nothing")

    assert "4 documents, 3 (75.0%) dropped by similarity >= 0.7" in shown.out, shown.err
    assert (facts["documents"], facts["dropped"]) == (4, 3)
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")
    assert other.status == 2


def test_forget_prints_a_receipt_lists_receipts_and_can_be_undone(
    docs: Path, words_flow: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    penstock("build", docs, store, "--flow", words_flow)

    done = penstock("forget", store, "start.md", "--reason", "asked for")
    listed = penstock("forget", store)
    gone = penstock("search", store, "install", "--json").json["hits"]
    undone = penstock("forget", store, "start.md", "--undo")
    penstock("build", docs, store, "--flow", words_flow)
    unknown = penstock("forget", store, "none.md")
    chosen = penstock("forget", store, "--where", "extension = 'md'", "--json")

    assert "Forgot 1 documents; published as run 000002." in done.out
    assert "receipts/000002.json" in done.out
    assert "asked for" in listed.out
    assert (gone, undone.status) == ([], 0)
    assert (unknown.status, "no run has such a document" in unknown.err) == (2, True)
    assert chosen.json["rows"]["documents"] == 1
    assert len(penstock("forget", store, "--json").json) == 2
    assert penstock("forget", store, "--where", "extension = 'md'").out.startswith("No document")

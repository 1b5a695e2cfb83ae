from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app
from penstock.cli.export import num_bytes
from penstock.errors import ConfigError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rows = [{"id": f"d{i}", "text": f"Document number {i}."} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = ps.jsonl(tmp_path / "rows.jsonl", id="id", text="text")
    ps.Flow(source=source, steps=[ps.ExactDedup()]).run(tmp_path / "store")
    return tmp_path / "store"


def test_the_command_exports_and_says_what_it_did(store: Path, tmp_path: Path) -> None:
    call = ["export", str(store), str(tmp_path / "out"), "--shard-size", "1kB"]

    first = CliRunner().invoke(app, call)
    again = CliRunner().invoke(app, [*call, "--json"])

    assert first.exit_code == again.exit_code == 0
    assert first.output.startswith(
        "Run 000001: 20 documents in 2 shards, 0.0 MB, mds\n20 documents"
    )
    assert json.loads(again.output)["written"] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("64MB", 64_000_000, id="decimal"),
        pytest.param("64 MiB", 64 << 20, id="binary"),
        pytest.param("1.5gb", 1_500_000_000, id="fraction"),
        pytest.param("1000", 1000, id="bytes"),
    ],
)
def test_sizes_are_understood(text: str, expected: int) -> None:
    assert num_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "64XB", "-1MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="64MB or 64MiB"):
        num_bytes(text)

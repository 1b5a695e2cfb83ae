"""The README and the tutorial, run as printed: their commands, their output, their Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)

# What differs from run to run and from machine to machine.
NOISE = [
    (re.compile(r"\n  bottleneck .*"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\d+\.\d+"), "#"),
    (re.compile(r" +(?=[#\n])"), " "),
]


def _without_noise(text: str) -> str:
    for pattern, replacement in NOISE:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _matches(expected: str, printed: str) -> bool:
    parts = (re.escape(part) for part in _without_noise(expected).split("..."))
    return re.fullmatch(".*".join(parts), _without_noise(printed), re.DOTALL) is not None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a clone, with `penstock` on the path."""
    shutil.copytree(ROOT / "tests/data", tmp_path / "clone/tests/data")
    tool = tmp_path / "bin/penstock"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\nfrom penstock.cli import main\nmain()\n")
    tool.chmod(0o755)
    return tmp_path / "clone"


def _run_console(block: str, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert _matches(expected, done.stdout), f"$ {command}\n{done.stdout}"


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_page_runs_as_printed(page: str, folder: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    for kind, block in blocks:
        if kind == "console":
            _run_console(block, folder)
        else:
            subprocess.run([sys.executable, "-c", block], cwd=folder, check=True)


def test_the_check_of_printed_output_can_fail() -> None:
    assert _matches("in 8.9 s:\n  a 14\n...", "in 7.1 s:\n  a 14\nmore\n")
    assert not _matches("in 8.9 s:\n  a 14", "in 7.1 s:\n  a 15\n")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert not [link for link in links if not (page.parent / link).exists()]

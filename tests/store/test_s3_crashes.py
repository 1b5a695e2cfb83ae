"""A writer to S3 that is killed at any request leaves the last run whole, and the next ends right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps

_BUILD = """
import sys
import penstock as ps
from penstock.build import documents

documents.CHECKPOINT_S = 0.0
print("ready", flush=True)
for line in sys.stdin:
    steps = [ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
    ps.Flow(source=ps.files(sys.argv[1]), steps=steps).run(sys.argv[2])
    print("done", flush=True)
"""


def start(docs: Path, s3: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BUILD, str(docs), s3]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    build = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    assert build.stdout.readline() == "ready\n"
    return build


def run_until(build: subprocess.Popen[str], server: Any, at: int) -> bool:
    """Let a process build, and kill it as it makes request number `at`; whether it came so far."""
    made = iter(range(10**9))
    killed = []

    def count(method: str, key: str) -> None:
        if next(made) == at:
            killed.append(True)
            os.kill(build.pid, signal.SIGKILL)

    server.before = count
    build.communicate("go\n", timeout=120)
    server.before = lambda method, key: None
    return bool(killed)


@pytest.mark.slow
def test_a_writer_killed_at_any_request_loses_nothing_that_was_published(
    s3: str,
    s3_server: Any,
    docs: Path,
    tmp_path: Path,
    words: Callable[[Path], ps.Flow],
    contents: Callable[..., Any],
) -> None:
    words(docs).run(s3)
    last, run = contents(s3), 1
    at = 1
    while True:
        (docs / "03.md").write_text(f"# Anew {at}\n\nWords of page 3, time {at}.\n")
        (docs / f"new-{at}.md").write_text(f"# New {at}\n\nWords of page 3.\n")
        (docs / f"{10 + at % 30}.md").unlink(missing_ok=True)
        build = start(docs, s3)
        came_so_far = run_until(build, s3_server, at)
        opened = ps.Store.open(s3)
        if int(opened.manifest.run) == run:
            assert contents(s3) == last
        words(docs).run(s3)
        words(docs).run(tmp_path / "fresh")
        last, run = contents(s3), int(ps.Store.open(s3).manifest.run)
        f = contents(tmp_path / "fresh")
        if last != f:
            words(docs).run(tmp_path / "fresh2")
            f2 = contents(tmp_path / "fresh2")
            print("at", at, "s3 ok", last == f2, "local ok", f == f2)
            for k in last:
                for a, b in zip(last[k], f2[k]):
                    if a != b: print(k, a, b); break
                print(k, len(last[k]), len(f[k]), len(f2[k]))
            import shutil; 
            raise SystemExit
        if not came_so_far:
            break
        at += 7
    assert at > 50

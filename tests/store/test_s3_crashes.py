"""A writer to S3 that is killed at any request leaves the last run, and the next one ends right."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps

pytestmark = pytest.mark.slow

_KILLS = 12

_BUILD = """
import sys
import penstock as ps
from penstock.build import documents

documents.CHECKPOINT_S = 0.0
steps = [ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
ps.Flow(source=ps.files(sys.argv[1]), steps=steps).run(sys.argv[2])
"""


def build_and_die(docs: Path, s3: str, server: Any, at: int) -> bool:
    """Build in another process, killed as it makes request number `at`; whether it came so far."""
    made = itertools.count()
    told = []

    def count(method: str, key: str) -> None:
        if next(made) == at:
            told.append(True)
            os.kill(build.pid, signal.SIGKILL)

    server.before = count
    build = subprocess.Popen([sys.executable, "-c", _BUILD, str(docs), s3])
    build.wait(timeout=120)
    server.before = lambda method, key: None
    return bool(told)


@pytest.mark.slow
def test_a_writer_killed_at_any_request_loses_nothing_that_was_published(
    s3: str,
    s3_server: Any,
    docs: Path,
    tmp_path: Path,
    words: Callable[[Path], ps.Flow],
    contents: Callable[..., Any],
) -> None:
    requests = itertools.count()
    words(docs).run(s3)
    (docs / "first.md").write_text("# First\n\nWords of page 3.\n")
    s3_server.before = lambda method, key: next(requests)
    words(docs).run(s3)
    moments = random.Random(0)
    last, run, kills = contents(s3), 2, 0
    latest = next(requests)
    for number in range(_KILLS):
        (docs / "03.md").write_text(f"# Anew {number}\n\nWords of page 3, time {number}.\n")
        (docs / f"new-{number}.md").write_text(f"# New {number}\n\nWords of page 3.\n")
        (docs / f"{10 + number}.md").unlink()
        kills += build_and_die(docs, s3, s3_server, moments.randrange(latest))
        if ps.Store.open(s3).manifest.run == f"{run:06d}":
            assert contents(s3) == last
        words(docs).run(s3)
        words(docs).run(tmp_path / "local")
        last, run = contents(s3), int(ps.Store.open(s3).manifest.run)

        assert last == contents(tmp_path / "local")
    assert kills > _KILLS / 2

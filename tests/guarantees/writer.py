"""A process that builds stores and is killed while it does: `python writer.py`, orders on stdin.

Each line of JSON is one build, done in a child of this process so that what is slow to load is
loaded once. `kill_at` kills the child at a call of the functions that change files, the first
being 1; `kill_after_rows` when the chain or the model has done so many. The answer is a line of
JSON: the child's exit status (negative for a signal), and how many calls it made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

import penstock as ps
import penstock.build.run  # what a build needs is loaded now
from penstock.build.chunks import Chunks
from penstock.build.documents import Documents
from penstock.index import update_index

CHANGES_FILES = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
)
SMALL: dict[str, dict[str, float]] = {
    "penstock.build.documents": {"CHECKPOINT_S": 0.0, "_FLUSH_BYTES": 1, "_RECOMPUTE_ROWS": 2},
    "penstock.build.chunks": {"CHECKPOINT_S": 0.0, "_FLUSH_BYTES": 1, "_WINDOW_ROWS": 2},
    "penstock.sources.files": {"_TASK_ITEMS": 2},
}
"""Tasks, windows and fragments of two rows, each saved at once: as in a large corpus."""


def steps(model: str | None) -> list[Any]:
    """A flow that has everything: its decisions see duplicates, its chunks have vectors."""
    embed = [] if model is None else [ps.Embed(model=model)]
    cut = ps.Chunk(max_tokens=16, overlap_tokens=0)
    return [ps.Normalize(), ps.ExactDedup(), ps.MinHashDedup(shingle=2), cut, *embed]


def in_small_parts() -> None:
    """Make this process work on two rows at a time."""
    for module, values in SMALL.items():
        for name, value in values.items():
            setattr(import_module(module), name, value)


def build(order: dict[str, Any]) -> None:
    """One build, in a process of its own that may be killed."""
    if order.get("small", True):
        in_small_parts()
    if "kill_after_rows" in order:
        for phase in (Documents, Chunks):
            if phase.__name__ == order["phase"]:
                _kill_after_rows(phase, order["kill_after_rows"])
    calls = _count_calls(order.get("kill_at"), after=order.get("after", False))
    flow = ps.Flow(source=ps.files(order["tree"]), steps=steps(order.get("model")))
    flow.run(order["store"])
    os.write(order["answer"], json.dumps(calls).encode())


def _count_calls(kill_at: int | None, *, after: bool) -> list[str]:
    """Count the calls that change files, and die at one of them: before it is made, or after."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            dies = len(calls) == kill_at
            if dies and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CHANGES_FILES:
        setattr(os, name, counted(name, getattr(os, name)))
    return calls


def _kill_after_rows(phase: Any, num_rows: int) -> None:
    real, done = phase.add, 0

    def add(self: Any, batch: Any) -> None:
        nonlocal done
        done += (batch if phase is Chunks else batch.documents).num_rows
        if done > num_rows:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, batch)

    phase.add = add


def warm_up() -> None:
    """Load the kernels. Lance's threads would not survive a fork, so no table is touched."""
    text = pa.array(["# w1\n\nw2 w3.\n"], pa.large_string())
    columns = {"doc_id": ["a.md"], "media_type": ["text/markdown"], "metadata": ["{}"]}
    arrays = {name: pa.array(values) for name, values in columns.items()} | {"text": text}
    arrays["text_hash"] = pa.array([bytes(16)], pa.binary(16))
    batch = pa.record_batch(arrays)
    normalize, exact, near, chunk = steps(None)
    normalize.apply(batch.drop_columns(["text_hash"]))
    for decision in (exact, near):
        signature = pa.chunked_array([decision.signature(batch)])
        decision.decide(pa.chunked_array([batch["doc_id"]]), signature)
    chunk.cut(batch.select(["doc_id", "media_type", "text"]))
    rows = {name: pa.array([""]) for name in ("title", "heading_path")} | arrays
    rows |= {name: pa.array([0], pa.int64()) for name in ("start", "end")}
    rows |= {"row_id": pa.array([0], pa.uint64()), "chunk_id": pa.array(["a.md#0"])}
    rows["embedding"] = pa.array([[0.0] * 32], pa.list_(pa.float32(), 32))
    with tempfile.TemporaryDirectory() as folder:
        update_index(Path(folder), None, "warm", [], [pa.record_batch(rows)])


def main() -> None:
    """Fork for each order, wait, answer."""
    warm_up()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        reader, order["answer"] = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            try:
                build(order)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(order["answer"])
        if "kill_after_s" in order:
            _kill_later(child, order["kill_after_s"])
        _, status = os.waitpid(child, 0)
        with open(reader, "rb") as answer:
            calls = json.loads(answer.read() or b"[]")
        print(json.dumps([os.waitstatus_to_exitcode(status), calls]), flush=True)


def _kill_later(child: int, seconds: float) -> None:
    import time

    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()

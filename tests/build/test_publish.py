"""A run is published whole or not at all, and an interrupted one is gone on with."""

from __future__ import annotations

import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.build import documents as documents_phase
from penstock.errors import ConfigError, FormatError, LeaseError, SourceError, StoreError
from penstock.store import files as store_files
from penstock.store.manifest import Manifest, publish

Check = Callable[[ps.Flow, Path], None]


class _PowerCutError(Exception):
    pass


@pytest.mark.parametrize(
    "point",
    [
        "penstock.build.documents.Documents.flush",
        "penstock.build.documents.Documents.finish",
        "penstock.build.run.decide",
        "penstock.build.run.write_verdicts",
        "penstock.build.tokens.Tokens.flush",
        "penstock.build.tokens.Tokens.finish",
        "penstock.build.chunks.Chunks.flush",
        "penstock.build.chunks.Chunks.finish",
        "penstock.build.index.update_index",
        "penstock.build.run.flush",
        "penstock.build.run.publish",
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_stops_anywhere_leaves_the_last_one_and_the_next_ends_right(
    point: str,
    when: str,
    words_flow: ps.Flow,
    tree: Path,
    tmp_path: Path,
    contents: Callable[[Path], Any],
    equals_fresh: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words_flow.run(tmp_path / "store")
    last = contents(tmp_path / "store")
    (tree / "guide/start.md").write_text("# Start\n\nAnew.\n")
    (tree / "notes/a.txt").unlink()
    place, name = point.rsplit(".", 1)
    real = pkgutil.resolve_name(point)

    def stop(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            real(*arguments, **options)
        raise _PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", stop)
        with pytest.raises(_PowerCutError):
            words_flow.run(tmp_path / "store")
    if (when, name) != ("after", "publish"):
        assert contents(tmp_path / "store") == last
    words_flow.run(tmp_path / "store")

    equals_fresh(words_flow, tmp_path / "store")


def test_work_saved_at_a_checkpoint_is_not_done_again(
    words_flow: ps.Flow,
    tree: Path,
    tmp_path: Path,
    equals_fresh: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(600):  # several tasks of the source, at 256 files each
        (tree / f"many-{number}.txt").write_text(f"Note number {number}.\n")
    monkeypatch.setattr(documents_phase, "CHECKPOINT_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.build.run.decide", _raise)
        with pytest.raises(_PowerCutError):
            words_flow.run(tmp_path / "store")
    counts = words_flow.run(tmp_path / "store").counts

    assert counts.items_listed == 607
    assert counts.items_read <= 256
    equals_fresh(words_flow, tmp_path / "store")


def _raise(*_: Any) -> None:
    raise _PowerCutError


def test_every_file_is_durable_before_the_run_is_published(
    words_flow: ps.Flow, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    at_publication: list[set[str]] = []
    real_fsync, real_replace = store_files.fsync_file, os.replace

    def fsync(path: Path) -> None:
        flushed.add(str(path))
        real_fsync(path)

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "current":
            at_publication.append(store_files.all_files(tmp_path / "store") - flushed)
        real_replace(source, target)

    monkeypatch.setattr(store_files, "fsync_file", fsync)
    monkeypatch.setattr(os, "replace", replace)
    words_flow.run(tmp_path / "store")
    (tree / "new.md").write_text("New.\n")
    words_flow.run(tmp_path / "store")

    # Flushed through their own descriptor: the manifests and the pointer, while still temporary.
    own = {"000001.json", "000002.json", "current", "current.tmp", "writer.lock"}
    assert [{Path(path).name for path in missing} - own for missing in at_publication] == [
        set(),
        set(),
    ]


_BUILD = """
import sys, time
import penstock as ps

def slow(doc):
    time.sleep(0.01)
    return {}

if __name__ == "__main__":
    flow = ps.Flow(source=ps.files(sys.argv[1]), steps=[ps.Map(slow)])
    print("begun", flush=True)
    try:
        flow.run(sys.argv[2])
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_for_the_next_build(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number:05}.txt").write_text(f"Note number {number}.\n")
    script = tmp_path / "build.py"
    script.write_text(_BUILD)
    command = [sys.executable, str(script), str(tree), str(tmp_path / "store")]
    build = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert build.stdout is not None
    assert build.stdout.readline() == "begun\n"
    # Two cores need 15 s for all; by then several tasks of 256 files are done.
    threading.Timer(9, build.send_signal, [signal.SIGINT]).start()
    said, _ = build.communicate(timeout=120)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    report = ps.Store.open(tmp_path / "store").manifest.counts

    assert said == "stopped\n"
    assert 0 < report["counts"]["items_read"] < 3000
    assert report["documents"] == 3000


def test_two_builds_at_once_end_in_one_clear_error(
    words_flow: ps.Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def second(*_: Any) -> None:
        with pytest.raises(LeaseError, match="wait until it is done") as caught:
            words_flow.run(tmp_path / "store")
        seen.append(str(caught.value))
        raise _PowerCutError

    monkeypatch.setattr("penstock.build.run.write_verdicts", second)
    with pytest.raises(_PowerCutError):
        words_flow.run(tmp_path / "store")

    assert f"process {os.getpid()}" in seen[0]


def test_a_writer_that_lost_its_lease_publishes_nothing(
    words_flow: ps.Flow, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words_flow.run(tmp_path / "store")
    (tree / "new.md").write_text("New.\n")

    def lose(*_: Any) -> None:
        (tmp_path / "store/writer.lock").unlink()

    monkeypatch.setattr("penstock.build.run.write_verdicts", lose)
    with pytest.raises(LeaseError, match="lost its lease"):
        words_flow.run(tmp_path / "store")

    assert ps.Store.open(tmp_path / "store").manifest.run == "000001"


def test_a_full_disk_is_one_clear_error_and_the_last_run_stands(
    words_flow: ps.Flow, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words_flow.run(tmp_path / "store")
    (tree / "new.md").write_text("New.\n")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("penstock.build.run.flush", full)
    with pytest.raises(StoreError, match="disk is full"):
        words_flow.run(tmp_path / "store")

    assert ps.Store.open(tmp_path / "store").manifest.run == "000001"


def test_a_store_of_a_newer_format_is_refused_by_readers_and_writers(
    words_flow: ps.Flow, tmp_path: Path
) -> None:
    (tmp_path / "store/runs").mkdir(parents=True)
    publish(tmp_path / "store", Manifest(run="000001", format=99))

    with pytest.raises(FormatError, match="pip install -U"):
        ps.Store.open(tmp_path / "store")
    with pytest.raises(FormatError, match="pip install -U"):
        words_flow.run(tmp_path / "store")


def test_a_wrong_source_path_is_an_error_and_makes_no_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        ps.Flow(source=ps.files(tmp_path / "nowhere"), steps=[]).run(tmp_path / "store")

    with pytest.raises(StoreError):
        ps.Store.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        pytest.param([ps.Embed()], "needs Chunk", id="embed-alone"),
        pytest.param([ps.Chunk(), ps.Normalize()], "must come last", id="chunk-first"),
        pytest.param([lambda doc: doc], "ps.Map", id="bare-function"),
    ],
)
def test_steps_that_make_no_flow_are_refused_at_once(
    steps: list[Any], problem: str, tree: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        ps.Flow(source=ps.files(tree), steps=steps)


def test_a_source_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"ps\.files"):
        ps.Flow(source="docs", steps=[])  # type: ignore[arg-type]

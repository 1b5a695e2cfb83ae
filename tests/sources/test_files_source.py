from __future__ import annotations

import json
import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError, SourceError
from penstock.protocols import Source
from penstock.records import to_json
from penstock.sources import Files, _local, files, jsonl, parquet
from penstock.sources._media_types import extension_of, media_type_of

Everything = Callable[[Source], Any]


def make(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def listed(source: Files) -> list[str]:
    items: list[str] = source.list().items["item"].to_pylist()
    return items


def test_every_file_is_a_document_named_by_its_path(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "b.md", "a/c.py", ".hidden", "a/é 文.txt", "a/line\nend.txt")

    found = everything(files(tmp_path))

    assert found.ids == sorted([".hidden", "a/c.py", "a/line\nend.txt", "a/é 文.txt", "b.md"])
    assert found.finished == found.listed
    assert found.failures == []
    row = next(row for row in found.rows if row["doc_id"] == "a/c.py")
    assert row["item"] == "a/c.py"
    assert row["raw"] == b"x"
    assert row["media_type"] == "text/x-python"
    assert row["metadata"] == '{"extension":"py","folder":"a","name":"c.py","num_bytes":1}'


def test_a_source_is_a_picklable_value(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    source = files(tmp_path, include="*.md", exclude=["x/"])

    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source
    assert repr(source).startswith(f"Files(path={str(tmp_path)!r}, include=('*.md',)")
    task = next(files(tmp_path).tasks(["a", "b"]))
    assert source.read(pickle.loads(pickle.dumps(task))).rows.num_rows == 2


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        pytest.param({"path": ""}, "files.path", id="empty-path"),
        pytest.param({"path": 3}, "files.path", id="number"),
        pytest.param({"path": b"a"}, "files.path", id="bytes"),
        pytest.param({"path": "a", "include": [""]}, "files.include", id="empty-pattern"),
        pytest.param({"path": "a", "exclude": [3]}, "files.exclude", id="number-for-a-pattern"),
        pytest.param({"path": "a", "max_bytes": 0}, "files.max_bytes", id="no-bytes"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        files(**settings)

    assert caught.value.setting == names


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        pytest.param([], [], ["a.md", "a.py", "docs/b.md", "docs/x/c.md", "src/d.py"], id="all"),
        pytest.param(["*.md"], [], ["a.md", "docs/b.md", "docs/x/c.md"], id="ending"),
        pytest.param(["docs/"], [], ["docs/b.md", "docs/x/c.md"], id="folder"),
        pytest.param(["docs/**"], [], ["docs/b.md", "docs/x/c.md"], id="folder-with-stars"),
        pytest.param(["/*.md"], [], ["a.md"], id="anchored"),
        pytest.param(
            ["*.md", "!docs/x/"], [], ["a.md", "docs/b.md", "docs/x/c.md"], id="file-wins"
        ),
        pytest.param(["docs", "!x"], [], ["docs/b.md"], id="but-not"),
        pytest.param([], ["docs"], ["a.md", "a.py", "src/d.py"], id="exclude-folder"),
        pytest.param([], ["*.md", "!a.md"], ["a.md", "a.py", "src/d.py"], id="exclude-but"),
        pytest.param(["*.md"], ["x/"], ["a.md", "docs/b.md"], id="both"),
    ],
)
def test_patterns_choose(
    tmp_path: Path, include: list[str], exclude: list[str], taken: list[str]
) -> None:
    make(tmp_path, "a.md", "a.py", "docs/b.md", "docs/x/c.md", "src/d.py")

    assert listed(files(tmp_path, include=include, exclude=exclude)) == taken


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        pytest.param("data/**/*.md", ["a.md", "x/b.md", "x/y/c.md"], id="two-stars"),
        pytest.param("data/*.md", ["a.md"], id="one-star"),
        pytest.param("data/*/*.md", ["x/b.md"], id="one-level-down"),
        pytest.param("data/x*", ["x/b.md", "x/y/c.md"], id="a-folder-stands-for-its-files"),
        pytest.param("data/**", ["a.md", "n.py", "x/b.md", "x/y/c.md"], id="everything"),
        pytest.param("data/[an].*", ["a.md", "n.py"], id="class"),
        pytest.param("da?a/a.md", ["data/a.md"], id="root-is-before-the-first-magic"),
    ],
)
def test_a_glob_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, glob: str, taken: list[str]
) -> None:
    make(tmp_path, "data/a.md", "data/n.py", "data/x/b.md", "data/x/y/c.md", "other/a.md")
    monkeypatch.chdir(tmp_path)

    assert listed(files(glob)) == taken
    assert listed(files(tmp_path / glob)) == taken


def test_a_name_with_a_bracket_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "a[1].txt", "a1.txt", "d[x]/b.txt")

    assert listed(files(tmp_path / "a[1].txt")) == ["a[1].txt"]
    assert listed(files(tmp_path / "d[x]")) == ["b.txt"]


def test_one_file_is_named_by_its_name(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "x/a.md", "x/b.md")

    assert everything(files(tmp_path / "x" / "a.md")).raw == {"a.md": b"x"}
    assert everything(files(f"file://{tmp_path}/x/a.md")).raw == {"a.md": b"x"}


@pytest.mark.parametrize("path", ["nothing", "nothing/*.md", "data/*.rst", "data/a.md/x"])
def test_a_wrong_path_is_one_clear_error(tmp_path: Path, path: str) -> None:
    make(tmp_path, "data/a.md")

    with pytest.raises(SourceError) as caught:
        files(tmp_path / path).list()

    assert path in str(caught.value)


def test_an_empty_folder_holds_nothing(tmp_path: Path, everything: Everything) -> None:
    found = everything(files(tmp_path))

    assert (found.rows, found.failures, found.listed) == ([], [], [])


def test_gitignore_files_count_at_every_level(tmp_path: Path) -> None:
    make(
        tmp_path, "a.log", "keep.log", "b.py", "out/c.py", "sub/out/d.py", "sub/e.tmp", "sub/f.log"
    )
    make(tmp_path, ".git/config", "sub/.git/config", ".hg/x", "sub/.svn/y")
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/out/\n")
    (tmp_path / "sub" / ".gitignore").write_text("!f.log\n*.tmp\n")

    assert listed(files(tmp_path)) == [
        ".gitignore",
        "b.py",
        "keep.log",
        "sub/.gitignore",
        "sub/f.log",
        "sub/out/d.py",
    ]
    assert "a.log" in listed(files(tmp_path, gitignore=False))
    assert not any(".git/" in item for item in listed(files(tmp_path, gitignore=False)))


def test_gitignore_files_above_count_up_to_the_repository(tmp_path: Path) -> None:
    make(
        tmp_path, "repo/.git/config", "repo/src/pkg/a.py", "repo/src/pkg/a.log", "repo/src/pkg/b.x"
    )
    (tmp_path / ".gitignore").write_text("*.py\n")  # above the repository: not ours
    (tmp_path / "repo" / ".gitignore").write_text("*.log\n/src/pkg/b.x\n")

    assert listed(files(tmp_path / "repo" / "src" / "pkg")) == ["a.py"]
    (tmp_path / "repo" / ".git" / "config").unlink()
    (tmp_path / "repo" / ".git").rmdir()
    assert listed(files(tmp_path / "repo" / "src" / "pkg")) == ["a.log", "a.py", "b.x"]


def test_links_are_followed_and_a_loop_costs_one_failure(
    tmp_path: Path, everything: Everything
) -> None:
    make(tmp_path, "root/a/b.txt", "elsewhere/c.txt", "elsewhere/d/e.txt")
    (tmp_path / "root" / "file").symlink_to(tmp_path / "elsewhere" / "c.txt")
    (tmp_path / "root" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "loop").symlink_to("..")
    (tmp_path / "root" / "broken").symlink_to("nowhere")
    (tmp_path / "root" / "self").symlink_to("self")

    found = everything(files(tmp_path / "root"))

    assert found.ids == ["a/b.txt", "file", "folder/c.txt", "folder/d/e.txt"]
    assert found.errors == [
        ("a/loop", "directory-loop"),
        ("broken", "broken-link"),
        ("self", "broken-link"),
    ]


def test_a_link_to_a_folder_above_the_root_ends_too(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "root/a.txt", "b.txt")
    (tmp_path / "root" / "up").symlink_to("..")

    found = everything(files(tmp_path / "root"))

    assert found.ids == ["a.txt", "up/b.txt"]
    assert found.errors == [("up/root", "directory-loop")]


def test_fifos_sockets_and_devices_are_never_opened(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # socket paths are short
        try:
            listening.bind("sock")
        finally:
            os.chdir(here)

        found = everything(files(tmp_path))

    assert found.ids == ["a.txt"]
    assert found.errors == [
        ("fifo", "not-a-regular-file"),
        ("null", "not-a-regular-file"),
        ("sock", "not-a-regular-file"),
    ]
    assert "FIFO" in found.failures[0].message


def test_a_file_replaced_by_a_fifo_does_not_hang(tmp_path: Path) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)
    task = next(source.tasks(["a"]))
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")

    read = source.read(task)

    assert [failure.error for failure in read.failures] == ["not-a-regular-file"]


def test_a_fifo_as_the_source_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(SourceError, match="FIFO"):
        files(tmp_path / "fifo").list()


def test_names_that_are_not_utf8_cost_their_own_row(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "a.txt")
    with open(os.fsencode(tmp_path) + b"/b\xff.txt", "w"):
        pass
    os.mkdir(os.fsencode(tmp_path) + b"/d\xe9")
    with open(os.fsencode(tmp_path) + b"/d\xe9/x", "w"):
        pass

    found = everything(files(tmp_path))

    assert found.ids == ["a.txt"]
    assert found.errors == [("b\\xff.txt", "name-not-utf8"), ("d\\xe9", "name-not-utf8")]
    assert "b'b\\xff.txt'" in found.failures[0].message


def test_an_unreadable_folder_costs_one_failure(
    tmp_path: Path, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.txt", "closed/b.txt", "z/c.txt")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    found = everything(files(tmp_path))

    assert found.ids == ["a.txt", "z/c.txt"]
    assert found.errors == [("closed", "unreadable")]
    assert found.failures[0].transient


@pytest.mark.parametrize(("code", "reason"), [(13, "Permission denied"), (5, "Input/output error")])
def test_an_unreadable_file_costs_its_own_row(
    tmp_path: Path,
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    reason: str,
) -> None:
    make(tmp_path, "a.txt", "b.txt", "c.txt")
    opening = os.open

    def refusing(path: str, *rest: Any) -> int:
        if str(path).endswith("b.txt"):
            raise OSError(code, reason, path)
        return opening(path, *rest)

    monkeypatch.setattr(os, "open", refusing)

    found = everything(files(tmp_path))

    assert found.ids == ["a.txt", "c.txt"]
    assert found.errors == [("b.txt", "unreadable")]
    assert reason in found.failures[0].message
    assert found.failures[0].transient
    assert found.finished == found.listed


def test_an_error_while_reading_costs_its_own_row(
    tmp_path: Path, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.txt")

    def failing(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", failing)

    assert everything(files(tmp_path)).errors == [("a.txt", "unreadable")]


def test_a_file_that_is_gone_is_not_finished(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    source = files(tmp_path)
    task = next(source.tasks(["a", "b"]))
    (tmp_path / "a").unlink()

    read = source.read(task)

    assert [(f.doc_id, f.error, f.transient) for f in read.failures] == [("a", "vanished", True)]
    assert [item for item, _ in read.finished] == ["b"]


def test_a_file_that_keeps_changing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)
    task = next(source.tasks(["a"]))
    reading = os.read
    times = []

    def growing(fd: int, size: int) -> bytes:
        data = reading(fd, size)
        with open(tmp_path / "a", "a") as file:
            file.write("more")
        times.append(size)
        return data

    monkeypatch.setattr(os, "read", growing)

    read = source.read(task)

    assert [(f.error, f.transient) for f in read.failures] == [("changed-while-read", True)]
    assert read.rows.num_rows == 0
    assert len(times) >= 3


def test_the_version_is_the_one_that_was_read(tmp_path: Path) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)
    before = source.list().items["version"].to_pylist()
    task = next(source.tasks(["a"]))
    (tmp_path / "a").write_text("changed")

    read = source.read(task)

    assert read.rows["raw"].to_pylist() == [b"changed"]
    assert [version for _, version in read.finished] != before
    assert [v for _, v in read.finished] == source.list().items["version"].to_pylist()


def test_a_listing_waits_until_a_change_would_show(tmp_path: Path) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)

    source.list()

    assert time.time_ns() - (tmp_path / "a").stat().st_mtime_ns >= _local._TICK_NS
    future = time.time_ns() + 10**12
    os.utime(tmp_path / "a", ns=(future, future))
    start = time.monotonic()
    source.list()
    assert time.monotonic() - start < 5


def test_a_change_of_the_same_size_is_a_new_version(tmp_path: Path) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)
    versions = set()
    for n in range(10):
        (tmp_path / "a").write_text(str(n))
        versions.add(source.list().items["version"][0].as_py())

    assert len(versions) == 10


def test_tasks_are_bounded_in_bytes_and_number(tmp_path: Path) -> None:
    for n in range(300):
        (tmp_path / f"{n:03}").write_bytes(b"x")
    (tmp_path / "500").write_bytes(b"y" * (5 << 20))
    (tmp_path / "600").write_bytes(b"z" * (3 << 20))
    (tmp_path / "601").write_bytes(b"z" * (3 << 20))
    source = files(tmp_path)

    tasks = list(source.tasks(listed(source)))

    assert [len(task.items) for task in tasks] == [256, 44, 1, 1, 1]


def test_what_is_too_large_is_not_read(tmp_path: Path, everything: Everything) -> None:
    make(tmp_path, "a", "b", text="12345")
    (tmp_path / "b").write_text("1")

    found = everything(files(tmp_path, max_bytes=4))

    assert found.ids == ["b"]
    assert found.errors == [("a", "too-large")]
    assert found.finished == found.listed


def test_a_single_line_of_200_mb_is_one_row(tmp_path: Path) -> None:
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(200 << 20)
    source = files(tmp_path)
    (task,) = source.tasks(["a.txt"])

    assert len(source.read(task).rows["raw"][0].as_buffer()) == 200 << 20


def test_a_task_is_read_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/a")
    monkeypatch.chdir(tmp_path)
    source = files("data")
    task = next(source.tasks(["a"]))
    monkeypatch.chdir("/")

    assert source.read(task).rows.num_rows == 1


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        pytest.param("data", "{here}/data", id="relative"),
        pytest.param("./data/", "{here}/data", id="dots-and-slashes"),
        pytest.param("data/x/../y", "{here}/data/y", id="folder-above"),
        pytest.param("link/../b", "{here}/link/../b", id="above-a-link"),
        pytest.param("data/**/*.md", "{here}/data/**/*.md", id="glob"),
        pytest.param("data/x*/", "{here}/data/x*/", id="glob-of-folders"),
        pytest.param("file://{here}/data", "{here}/data", id="file-url"),
        pytest.param("s3://bucket/docs/", "s3://bucket/docs/", id="url"),
        pytest.param("{here}/data", "{here}/data", id="absolute"),
    ],
)
@pytest.mark.parametrize("source", [files, jsonl, parquet])
def test_one_place_is_one_source(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[str], Any],
    written: str,
    kept: str,
) -> None:
    make(tmp_path, "data/x/a", "far/away/a")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path)

    assert source(written.format(here=tmp_path)).path == kept.format(here=tmp_path)


def test_a_relative_path_stays_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "data/a")
    monkeypatch.chdir(tmp_path)
    source = files("data")
    monkeypatch.chdir("/")

    assert listed(source) == ["a"]


def test_a_file_just_written_is_not_read_in_haste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a")
    source = files(tmp_path)
    # A change of the same size within one tick keeps the version: what is read
    # before the tick is over may not count.
    now = time.time_ns()
    os.utime(tmp_path / "a", ns=(now, now))
    task = next(source.tasks(["a"]))
    reads = []
    reading = os.read

    def counting(fd: int, size: int) -> bytes:
        reads.append(size)
        return reading(fd, size)

    monkeypatch.setattr(os, "read", counting)

    read = source.read(task)

    assert len(reads) == 2
    assert time.time_ns() - now >= _local._TICK_NS
    assert read.finished == (("a", task.versions[0]),)


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", text="12345")
    source = files(tmp_path)
    source.list()  # waits until the file has settled
    task = next(source.tasks(["a"]))
    monkeypatch.setattr(_local, "open_regular", lambda path: pytest.fail("opened a second time"))

    assert source.read(task).rows["raw"].to_pylist() == [b"12345"]


@pytest.mark.parametrize("name", ['q"uote', "back\\slash", "line\nend", "é", "no-dot"])
def test_metadata_are_canonical_json(tmp_path: Path, everything: Everything, name: str) -> None:
    make(tmp_path, "plain.md", name, f"d/{name}.{name}")

    rows = everything(files(tmp_path)).rows

    assert len(rows) == 3
    for row in rows:
        assert row["metadata"] == to_json(json.loads(row["metadata"]))
        known = json.loads(row["metadata"])
        assert f"{known['folder']}/{known['name']}".lstrip("/") == row["doc_id"]
        assert known["num_bytes"] == len(row["raw"])
        assert known["extension"] == extension_of(known["name"])


@pytest.mark.parametrize(
    ("name", "media_type", "extension"),
    [
        pytest.param("README.MD", "text/markdown", "md", id="upper-case"),
        pytest.param("Makefile", "text/x-makefile", "", id="by-name"),
        pytest.param(".bashrc", "text/plain", "", id="hidden"),
        pytest.param("a.tar.gz", "text/plain", "gz", id="last-dot"),
        pytest.param("a.h", "text/x-c", "h", id="header"),
        pytest.param("CMakeLists.txt", "text/x-cmake", "txt", id="name-before-extension"),
    ],
)
def test_a_name_tells_the_media_type(name: str, media_type: str, extension: str) -> None:
    assert (media_type_of(name), extension_of(name)) == (media_type, extension)

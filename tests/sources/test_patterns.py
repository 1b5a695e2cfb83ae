from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.sources._patterns import Patterns, ignore_lines
from penstock.sources._select import Glob

_GIT = shutil.which("git")


@pytest.mark.parametrize(
    ("lines", "path", "is_folder", "verdict"),
    [
        pytest.param(["*.pyc"], "a/b.pyc", False, True, id="ending-at-any-depth"),
        pytest.param(["build/"], "x/build", True, True, id="folder"),
        pytest.param(["build/"], "x/build", False, None, id="folder-pattern-is-not-for-files"),
        pytest.param(["/build"], "x/build", False, None, id="anchored"),
        pytest.param(["docs/*.md"], "docs/a/b.md", False, None, id="star-stays-in-its-folder"),
        pytest.param(["docs/**/*.md"], "docs/b.md", False, True, id="two-stars-match-no-folder"),
        pytest.param(["docs/**/*.md"], "docs/a/c/b.md", False, True, id="two-stars-match-many"),
        pytest.param(["abc/**"], "abc", True, None, id="trailing-stars-leave-the-folder"),
        pytest.param(["*.log", "!keep.log"], "keep.log", False, False, id="negation"),
        pytest.param(["!keep.log", "*.log"], "keep.log", False, True, id="the-last-one-decides"),
        pytest.param(["# a", "", "  "], "a", False, None, id="comments-and-blanks"),
        pytest.param(["\\#a"], "#a", False, True, id="escaped-hash"),
        pytest.param(["\\!a"], "!a", False, True, id="escaped-bang"),
        pytest.param(["a   "], "a", False, True, id="trailing-spaces-go"),
        pytest.param(["a\\ "], "a ", False, True, id="an-escaped-one-stays"),
        pytest.param(["a\\"], "a\\", False, None, id="backslash-at-the-end-never-matches"),
        pytest.param(["[!a]b"], "cb", False, True, id="negated-class"),
        pytest.param(["[[:digit:]]x"], "7x", False, True, id="named-class"),
        pytest.param(["[a-"], "[a-", False, None, id="unclosed-class-never-matches"),
        pytest.param(["a?c"], "a/c", False, None, id="question-mark-is-no-slash"),
        pytest.param(["x\ny"], "x\ny", False, True, id="line-end-in-a-name"),
    ],
)
def test_a_pattern_means_what_git_says(
    lines: list[str], path: str, is_folder: bool, verdict: bool | None
) -> None:
    assert Patterns(lines).verdict(path, path.rpartition("/")[2], is_folder) is verdict


def test_a_gitignore_file_may_have_a_mark_and_dos_line_ends() -> None:
    assert ignore_lines(b"\xef\xbb\xbf*.a\r\n*.b") == ["*.a", "*.b"]


_PIECES = st.sampled_from(
    [
        *("a", "b", "c", ".", " ", "!", "/", "]", "*", "**", "***", "?", "/**", "**/", "/**/"),
        *("[ab]", "[!a]", "[a-c]", "[[:alpha:]]", "[a-", "\\*", "\\a", "\\"),
    ]
)
_NAMES = st.sampled_from(["a", "b", "ab", "a*", "c.a", "abc", ".a", "a b", "]", "!a"])


@pytest.mark.skipif(_GIT is None, reason="git is the judge")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    patterns=st.lists(st.lists(_PIECES, min_size=1, max_size=5).map("".join), max_size=4),
    paths=st.lists(st.lists(_NAMES, min_size=1, max_size=4).map("/".join), max_size=20),
)
def test_git_ignores_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, patterns: list[str], paths: list[str]
) -> None:
    root = tmp_path_factory.mktemp("repository")
    for path in paths:
        file = root / path
        if not any(parent.is_file() for parent in file.parents) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    compiled = Patterns(patterns)

    def ignored(path: str, is_folder: bool = False) -> bool:
        above, _, name = path.rpartition("/")
        if above and ignored(above, is_folder=True):
            return True
        return bool(compiled.verdict(path, name, is_folder))

    files = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
    ours = sorted(file for file in files if not ignored(file))

    assert ours == _listed_by_git(root, patterns)


def _listed_by_git(root: Path, patterns: list[str]) -> list[str]:
    excludes = root.parent / f"{root.name}.patterns"
    excludes.write_text("\n".join(patterns) + "\n")
    subprocess.run([str(_GIT), "init", "-q", str(root)], check=True)
    command = [str(_GIT), "-C", str(root), "ls-files", "-z", "-o", f"--exclude-from={excludes}"]
    out = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return sorted(filter(None, out.split("\0")))


@pytest.mark.parametrize(
    ("pattern", "folder", "may_hold"),
    [
        pytest.param("*/a.md", "x", True, id="first-level"),
        pytest.param("*/a.md", "x/y", False, id="too-deep"),
        pytest.param("2024-*/**/a.md", "2023-01", False, id="another-branch"),
        pytest.param("2024-*/**/a.md", "2024-01/x/y", True, id="below-two-stars"),
        pytest.param("*.md", "x", False, id="files-only"),
    ],
)
def test_a_glob_knows_which_folders_to_leave_alone(
    pattern: str, folder: str, may_hold: bool
) -> None:
    assert Glob(pattern).may_hold(folder) is may_hold

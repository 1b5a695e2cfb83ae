"""Which of the files below a folder belong to a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.errors import ConfigError
from penstock.sources._patterns import Patterns, path_regex

VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})

_MAGIC = re.compile(r"[*?]|\[[^/]*\]")


@dataclass(frozen=True, slots=True)
class Folder:
    """What holds inside one folder.

    Attributes:
        prefix: Its path relative to the root, `""` or ending in `/`.
        ignores: Patterns in force, deepest first, each with how an item becomes
            a path relative to them: characters to cut off, text to put before.
        included: Whether an include pattern took this folder as a whole.
        globbed: Whether the path's glob took this folder as a whole.
    """

    prefix: str
    ignores: tuple[tuple[Patterns, int, str], ...] = ()
    included: bool = True
    globbed: bool = True

    def with_ignores(self, patterns: Patterns) -> Folder:
        """This folder, with the patterns of a `.gitignore` file in it."""
        if patterns.empty:
            return self
        return replace(self, ignores=((patterns, len(self.prefix), ""), *self.ignores))


class Glob:
    """A glob relative to a root: `**` crosses folders, `*` and `?` do not, dots are plain.

    A folder that matches stands for everything below it.
    """

    __slots__ = ("_crosses", "_folders_only", "_prefixes", "_whole")

    def __init__(self, pattern: str) -> None:
        parts = pattern.strip("/").split("/")
        self._folders_only = pattern.endswith("/")
        self._crosses = "**" in parts
        num_fixed = parts.index("**") if self._crosses else len(parts) - 1
        self._whole = _glob_regex(parts)
        self._prefixes = [_glob_regex(parts[: n + 1]) for n in range(num_fixed)]

    def takes(self, path: str, is_folder: bool) -> bool:
        """Whether the entry itself matches."""
        return (is_folder or not self._folders_only) and self._whole.fullmatch(path) is not None

    def may_hold(self, path: str) -> bool:
        """Whether something below this folder may match; if not, it need not be listed."""
        depth = path.count("/")
        if depth >= len(self._prefixes):
            return self._crosses
        return self._prefixes[depth].fullmatch(path) is not None


class Selection:
    """The files that a source takes, asked folder by folder from the root down.

    Attributes:
        gitignore: Whether `.gitignore` files count.
    """

    __slots__ = ("_endings", "_exclude", "_glob", "_include", "gitignore")

    def __init__(
        self,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        glob: str | None = None,
        gitignore: bool = False,
        endings: tuple[str, ...] = (),
    ) -> None:
        """Compile the patterns.

        Args:
            include: Patterns of what to take; none takes everything.
            exclude: Patterns of what to leave out.
            glob: What to take, as the part of a path from its first `*`, `?` or `[` on.
            gitignore: Whether `.gitignore` files count.
            endings: What a file's name must end in, unless the glob names the file itself.
        """
        self._include = Patterns(include) if include else None
        self._exclude = Patterns(exclude) if exclude else None
        self._glob = Glob(glob) if glob is not None else None
        self._endings = endings
        self.gitignore = gitignore

    def top(self, ignores: tuple[tuple[Patterns, int, str], ...] = ()) -> Folder:
        """The root folder."""
        return Folder("", ignores, self._include is None, self._glob is None)

    def enter(self, folder: Folder, name: str) -> Folder | None:
        """A folder inside a folder; None if nothing in it is taken."""
        path = folder.prefix + name
        if name in VERSION_CONTROL or self._left_out(folder, path, name, is_folder=True):
            return None
        included, globbed = folder.included, folder.globbed
        if self._include is not None:
            verdict = self._include.verdict(path, name, is_folder=True)
            included = included if verdict is None else verdict
        if not globbed and self._glob is not None:
            globbed = self._glob.takes(path, is_folder=True)
            if not globbed and not self._glob.may_hold(path):
                return None
        return Folder(path + "/", folder.ignores, included, globbed)

    def takes(self, folder: Folder, name: str) -> bool:
        """Whether a file of the folder is taken."""
        path = folder.prefix + name
        named = False
        if self._glob is not None and not folder.globbed:
            named = self._glob.takes(path, is_folder=False)
            if not named:
                return False
        if self._endings and not named and not name.lower().endswith(self._endings):
            return False
        if name == ".git" or self._left_out(folder, path, name, is_folder=False):
            return False
        if self._include is None:
            return True
        verdict = self._include.verdict(path, name, is_folder=False)
        return folder.included if verdict is None else verdict

    def _left_out(self, folder: Folder, path: str, name: str, is_folder: bool) -> bool:
        if self._exclude is not None and self._exclude.verdict(path, name, is_folder):
            return True
        for patterns, cut, before in folder.ignores:
            verdict = patterns.verdict(before + path[cut:], name, is_folder)
            if verdict is not None:
                return verdict
        return False


def split_glob(path: str) -> tuple[str, str | None]:
    """Cut a path before its first component with `*`, `?` or `[...]`: (root, glob or None)."""
    magic = _MAGIC.search(path)
    if magic is None:
        return path, None
    cut = path.rfind("/", 0, magic.start()) + 1
    return path[:cut], path[cut:]


def checked_patterns(setting: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Patterns as a tuple; one string counts as one pattern.

    Raises:
        ConfigError: Something in it is not a non-empty string.
    """
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str) or not pattern.strip():
            raise ConfigError(setting, patterns, "must be patterns such as '*.py' or 'docs/'")
    return found


def _glob_regex(parts: list[str]) -> re.Pattern[str]:
    # In a path a backslash is a character like any other; `[*]` stands for a star.
    return re.compile(path_regex("/".join(parts).replace("\\", "\\\\")), re.DOTALL)

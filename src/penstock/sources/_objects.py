"""Object stores and anything else behind a URL, through fsspec or Arrow's file systems."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from penstock.errors import SourceError
from penstock.sources._local import Found, too_large
from penstock.sources._patterns import Patterns, ignore_lines
from penstock.sources._select import VERSION_CONTROL, Folder, Selection, split_glob
from penstock.sources._trouble import Trouble

# What file systems say of an object that changes when it does, best first.
_TAGS = (
    "ETag",
    "etag",
    "e_tag",
    "checksum",
    "md5Hash",
    "content_md5",
    "CRC",
    "LastModified",
    "last_modified",
    "mtime",
    "modified",
    "updated",
    "created",
)
# Asking for objects one by one pays only for a few; a listing answers 1,000 at once.
_FEW = 8


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """A prefix of an object store; items are names relative to it.

    Attributes:
        url: What the user gave, which names the file system.
        base: The prefix in that file system's own form, without a `/` at its end.
    """

    url: str
    base: str

    def find(self, selection: Selection) -> Found:
        """Every object below the prefix that is selected.

        Raises:
            SourceError: The prefix cannot be listed or does not exist.
        """
        objects = self._find(fresh=True)
        if not objects and not _exists(self.url, self.base):
            raise SourceError(self.url, "expected an object or a prefix, found nothing there")
        found = Found()
        folders: dict[str, Folder | None] = {}
        folders[""] = self._with_ignores(selection.top(), objects, selection, found)
        for item in sorted(objects):
            prefix, _, name = item.rpartition("/")
            folder = self._folder(prefix, folders, objects, selection, found)
            if folder is not None and selection.takes(folder, name):
                found.files.append((item, _version(objects[item])))
        return found

    def find_file(self, name: str) -> Found:
        """One object."""
        return Found(files=[(name, _version(_info(self.url, self.path(name))))])

    def stat_items(self, items: Sequence[str]) -> list[tuple[int, str]]:
        """(size in bytes, version) of each item; (0, "") where there is none."""
        if len(items) > _FEW:
            known = self._find(fresh=False)
            infos = [known.get(item) for item in items]
        else:
            infos = [self._info_or_none(item) for item in items]
        return [(0, "") if info is None else (info["size"] or 0, _version(info)) for info in infos]

    def path(self, item: str) -> str:
        """The object's path in its file system."""
        return f"{self.base}/{item}"

    def open(self, item: str, version: str) -> tuple[BinaryIO, str]:
        """The object as a file. An object is replaced, never changed, so the version holds.

        Raises:
            Trouble: It is gone or cannot be opened.
        """
        try:
            return connect(self.url)[0].open(self.path(item), "rb"), version
        except Exception as err:  # every file system has errors of its own
            raise _trouble(err, version) from err

    def read(self, item: str, version: str, max_bytes: int) -> tuple[bytes, str]:
        """All bytes of the object.

        Raises:
            Trouble: It is gone, cannot be read or is too large.
        """
        try:
            size = int(version.partition(":")[0])
        except ValueError:
            size = 0
        if size > max_bytes:
            raise too_large(size, max_bytes, version)
        try:
            return connect(self.url)[0].cat_file(self.path(item)), version
        except Exception as err:
            raise _trouble(err, version) from err

    def _find(self, fresh: bool) -> dict[str, Mapping[str, Any]]:
        files = connect(self.url)[0]
        try:
            if fresh:
                files.invalidate_cache()
            found = files.find(self.base, detail=True)
        except Exception as err:
            raise SourceError(self.url, f"cannot be listed: {_reason(err)}") from err
        skip = len(self.base) + 1
        return {
            path[skip:]: info
            for path, info in found.items()
            if info["type"] == "file" and path.startswith(self.base + "/") and path[skip:]
        }

    def _folder(
        self,
        prefix: str,
        folders: dict[str, Folder | None],
        objects: Mapping[str, object],
        selection: Selection,
        found: Found,
    ) -> Folder | None:
        if prefix in folders:
            return folders[prefix]
        above, _, name = prefix.rpartition("/")
        parent = self._folder(above, folders, objects, selection, found)
        folder = None
        if parent is not None and name not in VERSION_CONTROL:
            folder = selection.enter(parent, name)
        if folder is not None:
            folder = self._with_ignores(folder, objects, selection, found)
        folders[prefix] = folder
        return folder

    def _with_ignores(
        self, folder: Folder, objects: Mapping[str, object], selection: Selection, found: Found
    ) -> Folder:
        item = folder.prefix + ".gitignore"
        if not selection.gitignore or item not in objects:
            return folder
        try:
            data, _ = self.read(item, "", 1 << 30)
        except Trouble as trouble:
            found.fail(item, trouble)
            return folder
        return folder.with_ignores(Patterns(ignore_lines(data)))

    def _info_or_none(self, item: str) -> Mapping[str, Any] | None:
        try:
            return _info(self.url, self.path(item))
        except SourceError:
            return None


def locate_object(url: str) -> tuple[ObjectFolder, str | None, str | None]:
    """Take a URL apart: (folder, the one object meant or None, glob or None).

    Raises:
        SourceError: No file system opens such a URL.
    """
    files, path = connect(url)
    # A `?` in a web address starts its query.
    root, glob = (path, None) if url.startswith("http") else split_glob(path)
    root = root.rstrip("/")
    try:
        is_file = glob is None and files.isfile(root)
    except Exception as err:
        raise SourceError(url, f"cannot be reached: {_reason(err)}") from err
    if is_file:
        folder, _, name = root.rpartition("/")
        return ObjectFolder(url, folder), name, None
    return ObjectFolder(url, root), None, glob


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it.

    Where the fsspec package for a scheme is missing (s3fs, gcsfs), Arrow's own
    file system for it is used.

    Raises:
        SourceError: Neither knows the scheme.
    """
    # A connection does not survive a fork.
    return _connect(url, os.getpid())


@lru_cache(maxsize=64)
def _connect(url: str, process: int) -> tuple[Any, str]:
    import fsspec.core

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as err:
        return _connect_by_arrow(url, err)
    except Exception as err:
        raise SourceError(url, f"cannot be opened: {_reason(err)}") from err
    return found


def _connect_by_arrow(url: str, reason: Exception) -> tuple[Any, str]:
    import pyarrow as pa
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    root, glob = split_glob(url)
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(root)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise SourceError(
            url,
            f"expected a path or a URL that fsspec or Arrow can open, found: {reason} "
            f"(Arrow: {err}). Check the scheme, or install its fsspec package",
        ) from reason
    return ArrowFSWrapper(files), path if glob is None else f"{path.rstrip('/')}/{glob}"


def _exists(url: str, path: str) -> bool:
    try:
        return bool(connect(url)[0].exists(path))
    except Exception as err:
        raise SourceError(url, f"cannot be reached: {_reason(err)}") from err


def _info(url: str, path: str) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = connect(url)[0].info(path)
    except Exception as err:
        raise SourceError(url, f"cannot be opened: {_reason(err)}") from err
    return info


def _version(info: Mapping[str, Any]) -> str:
    tag = next((info[key] for key in _TAGS if info.get(key) is not None), "")
    # A listing and a look at one object may give one time in two forms.
    if isinstance(tag, datetime.datetime):
        tag = tag.timestamp()
    if isinstance(tag, float):
        tag = round(tag * 1e6)
    return f"{info.get('size') or 0}:{tag}"


def _trouble(err: Exception, version: str) -> Trouble:
    if isinstance(err, FileNotFoundError):
        return Trouble(
            "vanished",
            "the object was listed and is gone now",
            "Nothing to do if it was deleted on purpose: the next build removes it.",
            transient=True,
        )
    return Trouble(
        "unreadable",
        f"the object cannot be read: {_reason(err)}",
        "Check the access rights and the network; the next build tries again.",
        transient=True,
        version=version or None,
    )


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"

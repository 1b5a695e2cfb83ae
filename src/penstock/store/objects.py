"""Paths of a store on an object store: as much of `pathlib.Path` as a store needs.

A put is whole or not at all, and durable when it is acknowledged. What decides
which run is published is put under a condition: the writer claims those objects
when it begins, and each of its puts holds only while nobody else has put one.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock.errors import LeaseError, MissingExtra, StoreError

_PART_BYTES = 8 << 20
"""Larger files go up in parts of this size, some at a time."""
_PARTS = 4


class Bucket:
    """A connection to a bucket, and what its writer has claimed; for many threads.

    Attributes:
        url: ``s3://bucket``.
        token: Names this writer; empty for a reader.
        options: What Lance needs to know to open a table there.
        rival: Says which other writer is at work, for errors.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as err:
            raise MissingExtra("s3", f"a store at {url}") from err
        # Whoever names an endpoint without encryption means it: a server on this machine, mostly.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        plain = endpoint.startswith("http://")
        self.url = url
        self.token = ""
        self.options = {"allow_http": "true"} if plain else {}
        self.rival: Callable[[], str] = lambda: "another writer"
        # Changed by the writer's own thread alone.
        self._claims: dict[str, str | None] = {}
        self._calls: Any = obstore
        try:
            self._store: Any = from_url(url, client_options={"allow_http": plain})
        except (ValueError, obstore.exceptions.BaseError) as err:
            raise StoreError(url, f"expected s3://BUCKET/PREFIX, found: {err}") from err

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.url,)  # as a reader

    def get(self, key: str) -> tuple[bytes, str]:
        """An object's bytes and its tag.

        Raises:
            FileNotFoundError: There is none.
        """
        found = self._do("read", key, lambda: self._calls.get(self._store, key))
        return bytes(self._do("read", key, found.bytes)), found.meta["e_tag"]

    def stream(self, key: str) -> Iterator[bytes]:
        """An object's bytes in pieces."""
        found = self._do("read", key, lambda: self._calls.get(self._store, key))
        pieces = iter(found.stream())
        while piece := self._do("read", key, lambda: next(pieces, b"")):
            yield bytes(piece)

    def tag(self, key: str) -> str | None:
        """What changes whenever an object is put; None where there is none."""
        try:
            return str(self._do("read", key, lambda: self._calls.head(self._store, key))["e_tag"])
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes | Path) -> None:
        """Put an object; one that is claimed only if nobody else has put it since.

        Raises:
            LeaseError: Somebody else has.
        """
        if key not in self._claims:
            self._do("write", key, lambda: self._send(key, content, "overwrite"))
            return
        assert isinstance(content, bytes)
        tag = self.swap(key, content, self._claims[key])
        if tag is None:
            raise LeaseError(
                f"{self.url}/{key}",
                f"{self.rival()} has put it since this writer began, so this one publishes "
                "nothing. Make sure that only one build runs, then build again",
            )
        self._claims[key] = tag

    def claim(self, key: str, tag: str | None) -> None:
        """From now on put this object only if it still has this tag; None: if there is none."""
        self._claims[key] = tag

    def swap(self, key: str, content: bytes, tag: str | None) -> str | None:
        """Put an object if it has this tag, or None if there is none; its new tag.

        Returns:
            None if the object was another one, so nothing was put.
        """
        failed = self._calls.exceptions
        mode = "create" if tag is None else {"e_tag": tag}
        try:
            return str(self._do("write", key, lambda: self._send(key, content, mode))["e_tag"])
        except (failed.AlreadyExistsError, failed.PreconditionError):
            pass
        # A put whose answer was lost is tried again, and then finds itself.
        try:
            there, tag = self.get(key)
        except FileNotFoundError:
            return None
        return tag if there == content else None

    def sizes(self, prefix: str) -> dict[str, int]:
        """Every object below a prefix, with its size in bytes."""
        batches = self._do("list", prefix, lambda: list(self._calls.list(self._store, prefix)))
        return {meta["path"]: int(meta["size"]) for batch in batches for meta in batch}

    def holds(self, prefix: str) -> bool:
        """Whether there is an object below a prefix."""
        batches = self._do("list", prefix, lambda: self._calls.list(self._store, prefix))
        return bool(self._do("list", prefix, lambda: next(iter(batches), None)))

    def children(self, prefix: str) -> list[str]:
        """Keys of the objects right below a prefix."""
        found = self._do(
            "list", prefix, lambda: self._calls.list_with_delimiter(self._store, prefix)
        )
        return sorted(meta["path"] for meta in found["objects"])

    def delete(self, keys: list[str]) -> None:
        """Delete objects; those that are not there are as good as deleted."""
        if keys:
            self._do("delete", keys[0], lambda: self._calls.delete(self._store, keys))
        self._claims.update((key, None) for key in keys if key in self._claims)

    def _send(self, key: str, content: bytes | Path, mode: object) -> Any:
        # Parts are for files alone: a condition holds for one put.
        if isinstance(content, bytes):
            return self._calls.put(self._store, key, content, mode=mode, use_multipart=False)
        return self._calls.put(
            self._store, key, content, mode=mode, chunk_size=_PART_BYTES, max_concurrency=_PARTS
        )

    def _do(self, what: str, key: str, call: Any) -> Any:
        failed = self._calls.exceptions
        try:
            return call()
        except (failed.AlreadyExistsError, failed.PreconditionError):
            raise
        except FileNotFoundError as err:
            if what == "read":
                raise
            raise StoreError(f"{self.url}/{key}", f"the bucket is not there ({err})") from err
        except (failed.PermissionDeniedError, failed.UnauthenticatedError) as err:
            raise StoreError(
                f"{self.url}/{key}",
                f"no right to {what} it ({_short(err)}); check AWS_ACCESS_KEY_ID and the others",
            ) from err
        except failed.BaseError as err:
            raise StoreError(
                f"{self.url}/{key}",
                f"cannot {what} it ({_short(err)}); check the network and AWS_ENDPOINT_URL",
            ) from err


class ObjectPath:
    """An object, or a prefix of objects, of a bucket."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket, self.key = bucket, key

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.bucket.url}/{self.key}" if self.key else self.bucket.url

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> ObjectPath:
        """The prefix that the object lies in."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def read_bytes(self) -> bytes:
        """The object.

        Raises:
            FileNotFoundError: There is none.
        """
        return self.bucket.get(self.key)[0]

    def read_text(self) -> str:
        """The object, of UTF-8."""
        return self.read_bytes().decode()

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return self.bucket.tag(self.key) is not None or self.is_dir()

    def is_dir(self) -> bool:
        """Whether there is an object below it."""
        return self.bucket.holds(self.key)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a prefix is there as soon as an object below it is."""

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects right below this prefix with such a name."""
        for key in self.bucket.children(self.key):
            path = ObjectPath(self.bucket, key)
            if fnmatch.fnmatchcase(path.name, pattern):
                yield path

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the object."""
        if not missing_ok and self.bucket.tag(self.key) is None:
            raise FileNotFoundError(str(self))
        self.bucket.delete([self.key])


def open_objects(url: str) -> ObjectPath:
    """The path that a URL names.

    Raises:
        StoreError: It is not of the form ``s3://BUCKET/PREFIX``.
        MissingExtra: The client is not installed.
    """
    scheme, _, rest = url.partition("://")
    name, _, key = rest.partition("/")
    if scheme != "s3" or not name:
        raise StoreError(url, "expected the folder of a store, or s3://BUCKET/PREFIX")
    return ObjectPath(Bucket(f"s3://{name}"), key.strip("/"))


def _short(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(err).__name__

"""An S3 server on loopback, that keeps conditions on puts as S3 does."""

from __future__ import annotations

import itertools
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock as ps

_BUCKET = "corpora"
_TABLES = ("documents", "verdicts", "chunks", "failures")


class S3Server:
    """moto's server; requests are answered one at a time, as moto's conditions need.

    Attributes:
        url: Its address.
        before: Called with method and key before each request; may raise or wait.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self.before: Callable[[str, str], None] = lambda method, key: None
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/{_BUCKET}", method="PUT")
        ).close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{_BUCKET}/"))
        with self._one_at_a_time:
            return list(self._app(environ, start))

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


_numbers = itertools.count()


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store that is not there yet, and an environment to reach it in."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    s3_server.before = lambda method, key: None
    return f"s3://{_BUCKET}/stores/{next(_numbers)}"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Forty pages, some words of which occur in several."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(40):
        text = (
            f"# Page {number}\n\nWords {number % 7} of page {number}.\n\n## More\n\nSame in all.\n"
        )
        (folder / f"{number:02}.md").write_text(text)
    return folder


@pytest.fixture
def words() -> Callable[[Path], ps.Flow]:
    """A flow without embeddings."""

    def make(docs: Path) -> ps.Flow:
        return ps.Flow(source=ps.files(docs), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()])

    return make


@pytest.fixture
def contents() -> Callable[..., dict[str, Any]]:
    """All that a run of a store holds, and what a search of it finds."""

    def read(store: str | Path, run: str | int | None = None) -> dict[str, Any]:
        opened = ps.Store.open(store, run)
        found = {name: getattr(opened, name)().to_pylist() for name in _TABLES}
        return {**found, "search": [h.to_json() for h in opened.search("words page 3", k=20)]}

    return read


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Path]:
    """Be on another machine, with no copies."""
    numbers = iter(range(100))

    def go() -> Path:
        cache = tmp_path / f"cache-{next(numbers)}"
        monkeypatch.setenv("PENSTOCK_CACHE", str(cache))
        return cache

    return go

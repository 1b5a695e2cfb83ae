"""A small folder of real kinds of text, and a way to compare two stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.guarantees.stores import samples_of
from tests.tokens.tokenizers_json import END, byte_tokenizer

import penstock as ps

TREE: dict[str, str | bytes] = {
    "guide/start.md": "# Start\n\nInstall it.\r\n\r\n## Run\n\nRun the build, then search.  \n",
    "guide/again.md": "# Again\n\nOnly what changed is read again.\n",
    "code/tool.py": "import sys\n\n\ndef main():\n    '''Say hello.'''\n    print('hello')\n",
    "notes/a.txt": "The same note.\n",
    "notes/b.txt": "The same note.\r\n",
    "notes/latin.txt": "Caf\xe9 au lait et cr\xeape suzette, d\xe9j\xe0 vu.\n".encode("latin-1"),
    "image.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with Markdown, code, notes (two of them equal), and a picture."""
    root = tmp_path / "tree"
    for name, content in TREE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.fixture
def words_flow(tree: Path) -> ps.Flow:
    """The tree without embeddings: every phase but the model."""
    tokenize = ps.Tokenize(tokenizer=byte_tokenizer(), end_of_document=END)
    return ps.Flow(
        source=ps.files(tree), steps=[ps.Normalize(), ps.ExactDedup(), tokenize, ps.Chunk()]
    )


Contents = dict[str, list[dict[str, Any]]]


@pytest.fixture
def contents() -> Callable[[Path], Contents]:
    """Every row of every table, but for how often a failure was tried."""

    def read(path: Path) -> Contents:
        store = ps.Store.open(path)
        failures = store.failures()
        return {
            "documents": store.documents().to_pylist(),
            "verdicts": store.verdicts().to_pylist(),
            "edits": store.edits().to_pylist(),
            "chunks": store.chunks().to_pylist(),
            "failures": failures.drop_columns(["tries"]).to_pylist(),
            "tokens": [] if store.manifest.tokens is None else samples_of(store),
        }

    return read


@pytest.fixture
def equals_fresh(tmp_path: Path, contents: Callable[[Path], Contents]) -> Callable[..., None]:
    """Assert that a store holds what a fresh build of the same flow holds."""
    count = iter(range(1000))

    def check(flow: ps.Flow, store: Path) -> None:
        fresh = tmp_path / f"fresh-{next(count)}"
        flow.run(fresh)
        assert contents(store) == contents(fresh)

    return check

"""The shape of the package: imports point one way, public names are told, import is light."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

ROOT = Path(penstock.__file__).parent

# Each layer may import from those before it and from itself.
LAYERS = [
    {"arrays", "errors", "records", "cores", "fingerprint", "protocols", "tiers"},
    {"kernels", "models"},
    {"cluster", "vectors", "words"},
    {"sources", "steps", "decisions", "engine", "index", "loader", "tokens"},
    {"store", "export"},
    {"build"},
    {"flow"},
    {"cli"},
]
PACKAGES = [
    "build",
    "cli",
    "cluster",
    "decisions",
    "engine",
    "export",
    "index",
    "kernels",
    "loader",
    "models",
]
PACKAGES += ["sources", "steps", "store", "tokens", "vectors", "words"]


def _layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if module in names)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "penstock" and len(parts) > 1:
                found.add(parts[1])
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")

    wrong = {name for name in _imports(path) if _layer(name) > _layer(own)}
    assert not wrong


def test_every_module_is_in_a_layer() -> None:
    top = {module.name for module in pkgutil.iter_modules([str(ROOT)])}

    assert top == set().union(*LAYERS)


@pytest.mark.parametrize("name", ["penstock", *(f"penstock.{name}" for name in PACKAGES)])
def test_public_names_are_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])

    assert public == sorted(public)
    assert all(hasattr(module, entry) for entry in public)


_LIGHT = """
import sys
import {module}
heavy = {{"lance", "faiss", "tantivy", "numba", "onnxruntime", "onnx", "tokenizers", "torch"}}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["penstock", "penstock.cli", "penstock.flow", "penstock.store"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIGHT.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_help_loads_neither_arrow_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from penstock.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'pyarrow', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Examples:" in done.stdout
    assert done.stderr.strip() == "[]"

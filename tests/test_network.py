"""Nothing in Penstock opens a network connection unasked, native libraries included.

The command runs under a system-call filter that kills the process at its first
attempt to make an internet socket, whichever library makes it.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the filter is written for Linux on x86-64 and Arm",
)

# Installs the filter by prctl(2), then runs the code given as the first argument.
_GUARDED = """
import ctypes, platform, struct, sys

SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_RET+K
KILL, ALLOW = 0x80000000, 0x7FFF0000
program = b"".join(
    struct.pack("HBBI", *line)
    for line in [
        (LOAD, 0, 0, 0),        # the system call's number
        (EQUAL, 0, 4, SOCKET),
        (LOAD, 0, 0, 16),       # its first argument: the address family
        (EQUAL, 1, 0, 2),       # AF_INET
        (EQUAL, 0, 1, 10),      # AF_INET6
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
)
libc = ctypes.CDLL(None, use_errno=True)
lines = ctypes.create_string_buffer(program)
header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, header) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
sys.argv = ["penstock", *sys.argv[2:]]
exec(code)
"""


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = "import sys\ncode = sys.argv[1]\n" + _GUARDED
    command = [sys.executable, "-c", script, code, *map(str, arguments)]
    silencing = ("ORT_DISABLE_TELEMETRY", "CI")  # what would keep a library silent by itself
    environment = {k: v for k, v in os.environ.items() if k not in silencing}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_filter_kills_a_process_that_makes_an_internet_socket() -> None:
    for family in ("AF_INET", "AF_INET6"):
        done = _run(f"import socket; socket.socket(socket.{family})")

        assert done.returncode == -signal.SIGSYS
    assert _run("import socket; socket.socket(socket.AF_UNIX).close()").returncode == 0


def test_building_and_searching_with_the_model_opens_no_connection(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# A page\n\nWith a few words.\n")
    command = "from penstock.cli import main; main()"

    built = _run(command, "build", docs, tmp_path / "store")
    found = _run(command, "search", tmp_path / "store", "words")

    assert (built.returncode, found.returncode) == (0, 0), built.stderr + found.stderr
    assert "a.md" in found.stdout


def test_importing_every_module_opens_no_connection() -> None:
    code = (
        "import importlib, pkgutil, penstock, penstock.errors\n"
        "names = [m.name for m in pkgutil.walk_packages(penstock.__path__, 'penstock.')]\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except penstock.errors.MissingExtra: pass\n"
        "import lance, faiss, Stemmer\n"
        "print(len(names))"
    )
    done = _run(code)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.slow
def test_onnx_runtime_reports_nothing_when_penstock_loads_it() -> None:
    # Imported without Penstock, it reports from a thread some 10 s later, unless it believes to
    # run in continuous integration; seen with onnxruntime 1.31.1, whose process the filter killed.
    code = (
        "from penstock.models import open_encoder; open_encoder().encode(['a text'])\n"
        "import time; time.sleep(20)"
    )

    assert _run(code).returncode == 0

"""Say on what machine and with which versions a benchmark ran."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_ASK = """
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def print_machine(*packages: str) -> None:
    """Print processor, cores that may be used, memory, load, Python, system and versions.

    Args:
        *packages: Names of installed distributions; Penstock is always named.
    """
    from penstock import __version__
    from penstock.cores import num_cores

    versions = [f"penstock {__version__}", *(f"{name} {_version(name)}" for name in packages)]
    lines = {
        "processor": f"{_processor()}, {num_cores()} of {os.cpu_count()} cores usable",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(versions),
    }
    if hasattr(os, "getloadavg"):
        # Timings on a machine that does other work are too slow, for everyone alike.
        lines["load"] = f"{os.getloadavg()[0]:.1f} processes wanted to run in the last minute"
    for name, value in lines.items():
        print(f"{name + ':':<11}{value}")


def peer_versions(python: str, *packages: str) -> dict[str, str]:
    """Versions of Python and of these packages in another interpreter; what it lacks is left out.

    Raises:
        SystemExit: That interpreter cannot be run.
    """
    try:
        asked = subprocess.run(
            [python, "-c", _ASK, *packages], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as err:
        raise SystemExit(f"--peer-python {python} cannot be run: {err}") from err
    return {str(name): str(version) for name, version in json.loads(asked.stdout).items()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{pages * size / 2**30:.1f} GiB"

"""Build a store from Python's own standard library, search it, edit a file and build again.

    python examples/demo.py STDLIB FOLDER

Copies as many modules of the standard library as this machine embeds in about
a minute into FOLDER/source, so that the edit at the end touches only the copy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from penstock.cores import num_cores

BYTES_PER_CORE = 700_000
"""Source that a core of a 2020s server embeds in about a minute in fp32, with others at work."""

FIRST = ["json", "csv.py", "datetime.py", "pathlib.py", "sqlite3", "logging", "concurrent"]
FIRST += ["argparse.py", "subprocess.py", "shutil.py", "tempfile.py", "heapq.py", "zipfile.py"]


NEW_FUNCTION = '''

def count_rows(path):
    """Count the rows of a file of comma separated values."""
    with open(path, newline="") as file:
        return sum(1 for _ in reader(file))
'''


def copy_library(library: Path, target: Path, budget: int) -> int:
    """Copy modules, well-known ones first, until the budget of bytes is spent; returns the sum."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    rest = sorted(path.name for path in library.glob("*.py"))
    total = 0
    for name in dict.fromkeys([*FIRST, *rest]):
        found = library / name
        for path in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
            size = path.stat().st_size if path.exists() else budget + 1
            if total + size <= budget:
                copy = target / path.relative_to(library)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                total += size
    return total


def penstock(*arguments: str | Path) -> None:
    """Show a command and run it."""
    words = [str(word) for word in arguments]
    print("\n$ penstock " + " ".join(f'"{w}"' if " " in w else w for w in words), flush=True)
    code = "from penstock.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *words], check=True)


def main() -> None:
    """Run the demonstration."""
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    source, store = folder / "source", folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    size = copy_library(library, source, BYTES_PER_CORE * num_cores())
    print(f"Copied {size / 1e6:.1f} MB of the standard library to {source}.")
    penstock("build", source, store)
    penstock("search", store, "read rows of a comma separated file into dictionaries", "-k", "3")
    penstock("search", store, "run a command and wait for it", "-k", "2", "--mode", "words")
    print("\nNow one file gets a new function; only what changed is done again.")
    with (source / "csv.py").open("a") as file:
        file.write(NEW_FUNCTION)
    penstock("build", source, store)
    penstock("search", store, "count the rows of a csv file", "-k", "1")
    penstock("status", store)


if __name__ == "__main__":
    main()

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLEAN = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import pyarrow as pa
from penstock.kernels import text_buffers
from penstock.kernels.normalizing import clean
clean(*text_buffers(pa.array(["a "])), True, True, True)
"""


def _log_of_a_process(cache: Path) -> str:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", CLEAN], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_compiling_is_announced_once_and_only_without_a_cache(tmp_path: Path) -> None:
    first, second = _log_of_a_process(tmp_path), _log_of_a_process(tmp_path)

    assert first.count("compiling kernels") == 1
    assert second == ""


def test_importing_the_folder_does_not_import_numba() -> None:
    code = "import sys, penstock.kernels; print('numba' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"

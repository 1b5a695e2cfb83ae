"""Run a model in bf16 on CPUs with AMX, through OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigError, MissingExtra
from penstock.models.folder import ModelFolder
from penstock.models.graph import INPUT
from penstock.models.session import graph_file


def has_amx_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bf16 tiles; elsewhere bf16 is far slower than fp32."""
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False


def open_bf16(folder: ModelFolder) -> Callable[[npt.NDArray[np.int64]], Any]:
    """A function from token ids (num_texts, num_tokens) to vectors.

    Raises:
        ConfigError: The CPU has no AMX for bf16.
        MissingExtra: OpenVINO is not installed.
    """
    if not has_amx_bf16():
        raise ConfigError(
            "precision", "bf16", "needs a CPU with AMX (amx_bf16): use 'fp32' or 'int8'"
        )
    try:
        import openvino
    except ImportError as err:
        raise MissingExtra("openvino", "precision 'bf16'") from err
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(graph_file(folder, "fp32")), "CPU", settings)

    def infer(ids: npt.NDArray[np.int64]) -> Any:
        # A request belongs to one thread at a time, so each call has its own.
        return compiled.create_infer_request().infer({INPUT: ids})[0]

    return infer

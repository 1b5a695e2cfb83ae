"""Open a model's graph in ONNX Runtime, on this machine's terms."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import ModelError
from penstock.models.adapt import adapt_graph
from penstock.models.cache import cached_file
from penstock.models.fingerprint import fingerprint_of
from penstock.models.folder import ModelFolder
from penstock.models.graph import INPUT, build_graph
from penstock.models.quantize import quantize_graph


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off: nothing in Penstock imports it elsewhere.

    Its wheels since 1.29 send usage data unless this is set before the import. A
    user's own value is replaced: Penstock promises to open no connection.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def encoder_graph(folder: ModelFolder) -> Any:
    """The graph of a folder's encoder, from its weights or its own graph, in fp32."""
    own = folder.weights.suffix == ".safetensors"
    return build_graph(folder) if own else adapt_graph(folder)


def open_session(
    folder: ModelFolder,
    precision: str,
    make: Callable[[ModelFolder], Any] = encoder_graph,
    kind: str = "",
) -> Any:
    """An ONNX Runtime session of a model in `fp32` or `int8`, built and cached if need be.

    One thread inside the session; callers run it from as many threads as they like.

    Args:
        folder: The model.
        precision: `fp32` or `int8`.
        make: Makes the `onnx.ModelProto` in fp32.
        kind: Names what `make` makes, where that is no encoder.

    Raises:
        ModelError: The graph cannot be built.
    """
    file = graph_file(folder, precision, make, kind)
    try:
        return _session(file)
    except Exception as err:
        raise ModelError(str(folder.path), f"ONNX Runtime cannot load its graph: {err}") from err


def graph_file(
    folder: ModelFolder,
    precision: str,
    make: Callable[[ModelFolder], Any] = encoder_graph,
    kind: str = "",
) -> Path:
    """The built graph's file in the cache, in `fp32` or `int8`.

    Raises:
        ModelError: The graph cannot be built.
    """
    unsigned = precision == "int8" and _saturates()
    key = fingerprint_of(folder, precision) + kind + ("-unsigned" if unsigned else "")

    def build() -> bytes:
        own = folder.weights.suffix == ".safetensors"
        model = make(folder)
        if precision == "int8":
            model = quantize_graph(model, unsigned_weights=unsigned, rows_only=own)
        return bytes(model.SerializeToString())

    return cached_file(key, ".onnx", build)


def _session(model: Path | bytes) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The arena saves an eighth of the time in int8. It grows with the largest batch,
    # and the encoder's batches are small; patterns would be kept for every shape seen.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else os.fspath(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@cache
def _saturates() -> bool:
    """Whether products of unsigned by signed bytes lose bits on this CPU.

    x86 without VNNI adds pairs of products in 16 bits and clips. With weights stored
    unsigned another, exact kernel runs, so a vector is the same on both CPUs.
    """
    from onnx import TensorProto, helper, numpy_helper

    rows, width, columns = 4, 64, 32
    weight = np.full((width, columns), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", [INPUT, "weight"], ["product"])],
        "probe",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [rows, width])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(weight, "weight")],
    )
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = _session(probe.SerializeToString())
    (product,) = session.run(None, {INPUT: np.full((rows, width), 255, np.uint8)})
    return bool((product != 255 * 127 * width).any())

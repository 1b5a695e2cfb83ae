"""Turn a graph's linear layers into 8-bit integer products, one scale per row.

ONNX Runtime's own dynamic quantisation scales a whole batch by its largest value,
so a text's vector depends on its neighbours. Here each token's row has its own
scale: with `s = max|row| / 127` and `q = round(row / s)`, the product of `q` with
the weights (signed, one scale per output channel) is exact integer arithmetic,
and what follows is elementwise. So a row's result is a function of that row
alone, bit for bit, and is also nearer to fp32 than with one scale for all.

Activations are stored unsigned with zero point 128, since the fast instructions
multiply unsigned by signed: with signed activations ONNX Runtime ran 6 times
slower on a CPU with AVX-512 VNNI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.models.graph import ACTIVATED, LEAST_ACTIVATED, Graph

REVISION = 1
"""Goes up when the same graph may give other vectors."""

F32 = npt.NDArray[np.float32]
RUNTIME_DOMAIN = "com.microsoft"  # operators that ONNX Runtime adds to the standard
_TINY = 1e-30  # a row of zeros must not divide by zero


def quantize_graph(model: Any, *, unsigned_weights: bool = False, rows_only: bool = False) -> Any:
    """Replace each `MatMul` by constant weights (rows, columns) in a graph, in place.

    Args:
        model: An `onnx.ModelProto` of opset 13 or later.
        unsigned_weights: Store weights with zero point 128. The integers that come
            out are the same, so are the vectors.
        rows_only: Every product's input is (num_tokens, width), as in graphs that
            `build_graph` makes: saves the work of flattening and restoring shapes.

    Returns:
        The same model.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    if all(known.domain != RUNTIME_DOMAIN for known in model.opset_import):
        model.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    weights = {
        t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == 1
    }  # float
    writer = _RowQuantizer(opset, unsigned_weights, rows_only)
    nodes: list[Any] = []
    replaced: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        writer.product(node.input[0], node.input[1], weight, node.output[0])
        nodes.extend(writer.graph.nodes)
        writer.graph.nodes.clear()
        replaced.add(node.input[1])
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name not in replaced or t.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *writer.graph.constants])
    return model


class _RowQuantizer:
    def __init__(self, opset: int, unsigned_weights: bool, rows_only: bool) -> None:
        self.graph = Graph("int8_")
        self._opset = opset
        self._unsigned = unsigned_weights
        self._rows_only = rows_only
        self._rows: dict[str, tuple[str, str]] = {}
        self._weights: dict[str, tuple[str, str, str]] = {}
        self._zeros = ""

    def product(self, values: str, name: str, weight: F32, out: str) -> None:
        """`out = values @ weight` for values (..., rows) and weight (rows, columns)."""
        graph = self.graph
        rows, scale = self._quantized_rows(values, weight.shape[0])
        integers, channel_scale, weight_zero = self._quantized_weight(name, weight)
        # Scales the integers by channel while they are still in the cache.
        scaled = graph.add(
            "MatMulIntegerToFloat",
            rows,
            integers,
            graph.constant(1),
            channel_scale,
            graph.constant(128, np.uint8),
            *filter(None, [weight_zero]),
            domain=RUNTIME_DOMAIN,
        )
        if self._rows_only:
            graph.add("Mul", scaled, scale, output=out)
            return
        leading = graph.add(
            "Slice", graph.add("Shape", values), graph.ints(0), graph.ints(-1), graph.ints(0)
        )
        shape = graph.add("Concat", leading, graph.ints(weight.shape[1]), axis=0)
        graph.add("Reshape", graph.add("Mul", scaled, scale), shape, output=out)

    def _quantized_rows(self, values: str, width: int) -> tuple[str, str]:
        """8-bit rows (num_rows, width) and their scales (num_rows, 1)."""
        if values not in self._rows:  # query, key and value share their input
            graph = self.graph
            flat = values
            if not self._rows_only:
                flat = graph.add("Reshape", values, graph.ints(-1, width))
            if values.startswith(ACTIVATED):  # its least value is known: saves looking for it
                least = graph.constant(-LEAST_ACTIVATED)
            else:
                least = graph.add("Neg", self._reduce("ReduceMin", flat))
            largest = graph.add(
                "Max", self._reduce("ReduceMax", flat), least, graph.constant(_TINY)
            )
            scale = graph.add("Mul", largest, graph.constant(1 / 127))
            rows = graph.add("QuantizeLinear", flat, scale, self._zero_points(scale), axis=0)
            self._rows[values] = rows, graph.add("Unsqueeze", scale, graph.ints(1))
        return self._rows[values]

    def _zero_points(self, scale: str) -> str:
        """128 for each row: one tensor for the whole graph where all have the same rows."""
        if not self._zeros or not self._rows_only:
            shape = self.graph.add("Shape", scale)
            self._zeros = self.graph.add("Expand", self.graph.constant([128], np.uint8), shape)
        return self._zeros

    def _quantized_weight(self, name: str, weight: npt.NDArray[np.float32]) -> tuple[str, str, str]:
        if name not in self._weights:
            largest = np.abs(weight).max(axis=0)
            scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
            integers = np.clip(np.rint(weight / scale), -127, 127).astype(np.int16)
            zero = ""
            if self._unsigned:
                zero = self.graph.constant(np.full(scale.shape, 128), np.uint8)
                stored = self.graph.constant(integers + 128, np.uint8)
            else:
                stored = self.graph.constant(integers, np.int8)
            self._weights[name] = stored, self.graph.constant(scale), zero
        return self._weights[name]

    def _reduce(self, kind: str, rows: str) -> str:
        if self._opset >= 18:
            return self.graph.add(kind, rows, self.graph.ints(-1), keepdims=0)
        return self.graph.add(kind, rows, axes=[-1], keepdims=0)

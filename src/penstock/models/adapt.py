"""Give a graph that came with a model the same one input and one output as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.errors import ModelError
from penstock.models.folder import ModelFolder
from penstock.models.graph import INPUT, OUTPUT, Graph, append_normalization, append_pooling

_POOLED = ("sentence_embedding",)
_TOKENS = ("token_embeddings", "last_hidden_state")
_OLDEST_OPSET = 15  # Shape of a range of axes, QuantizeLinear along an axis


def adapt_graph(folder: ModelFolder) -> Any:
    """The folder's own ONNX graph with pooling and normalisation inside, as a `ModelProto`.

    Batches hold texts of one length, so the mask is all ones and the segments are
    all zero: both become constants of the graph.

    Raises:
        ModelError: Broken, too old, or with inputs or outputs of another meaning.
    """
    import onnx
    from onnx import TensorProto, helper

    place = str(folder.weights)
    try:
        model = onnx.load(place)
    except Exception as err:  # protobuf's own errors, and those of external data
        raise ModelError(place, f"expected an ONNX graph, found {err}: fetch it again") from err
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise ModelError(
            place, f"expected opset {_OLDEST_OPSET} or later, found {opset}: export it again"
        )
    inner = model.graph
    added = Graph("penstock_")
    if inner.input[0].type.tensor_type.elem_type != TensorProto.INT64:
        raise ModelError(place, "expected inputs of type int64: export it again")
    before = _constant_inputs(added, inner, place)
    num_before = len(added.nodes)
    _append_output(added, inner, folder)
    nodes = [*added.nodes[:num_before], *inner.node, *added.nodes[num_before:]]
    del inner.node[:]
    inner.node.extend(nodes)
    inner.initializer.extend(added.constants)
    kept = [value for value in inner.input if value.name not in before]
    del inner.input[:], inner.output[:]
    inner.input.extend(kept)
    inner.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None))
    return model


def _constant_inputs(added: Graph, inner: Any, place: str) -> set[str]:
    from onnx import numpy_helper

    stored = {tensor.name for tensor in inner.initializer}
    names = {value.name for value in inner.input} - stored
    unknown = names - {INPUT, "attention_mask", "token_type_ids"}
    if unknown or INPUT not in names:
        raise ModelError(
            place,
            "expected the inputs input_ids, attention_mask and token_type_ids, found "
            f"{sorted(names)}: export the plain encoder",
        )
    shape = added.add("Shape", INPUT)
    for name, number in (("attention_mask", 1), ("token_type_ids", 0)):
        if name in names:
            filled = numpy_helper.from_array(np.array([number], np.int64))
            added.add("ConstantOfShape", shape, value=filled, output=name)
    return (names | stored) - {INPUT}


def _append_output(added: Graph, inner: Any, folder: ModelFolder) -> None:
    outputs = [value.name for value in inner.output]
    pooled = next((name for name in _POOLED if name in outputs), None)
    tokens = next((name for name in _TOKENS if name in outputs), None)
    if pooled:
        append_normalization(added, folder, pooled)
    elif tokens:
        append_pooling(added, folder, tokens)
    else:
        raise ModelError(
            str(folder.weights),
            f"expected an output {_TOKENS[1]!r}, {_TOKENS[0]!r} or {_POOLED[0]!r}, found "
            f"{outputs}: export it again under one of these names",
        )

"""Build the ONNX graph of a BERT-family encoder from its weights, without PyTorch.

The graph has one input, `input_ids` (num_texts, num_tokens) int64, and one
output, (num_texts, dim) float32: pooling and normalisation are inside. There is
no attention mask, because a batch holds texts of one length only (see `encoder`):
nothing is padded, so nothing has to be masked, and no text can feel how long its
neighbours are.

Three identities save work and change no result beyond rounding. The scale of the
attention scores is folded into the query weights. A key's bias adds the same
number to all scores of a row, which softmax ignores, so it is left out. Attention
weights add up to 1, so a value's bias passes through attention unchanged and is
folded into the bias of the layer after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import ModelError
from penstock.models.folder import ModelFolder

REVISION = 1
"""Goes up when a graph built from the same folder may give other vectors."""

OPSET = 17
INPUT, OUTPUT = "input_ids", "penstock_embedding"
ACTIVATED = "activated:"
"""Begins the names of the activations' outputs, which are nowhere below `LEAST_ACTIVATED`."""
LEAST_ACTIVATED = -0.1701  # the minimum of both forms of gelu, rounded down

F32 = npt.NDArray[np.float32]
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


class Graph:
    """Collects nodes and constants; each call returns the name of what it adds."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix
        self._count = 0

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A tensor that is stored in the graph."""
        from onnx import numpy_helper

        name = self._name("c")
        # Not `ascontiguousarray`: it would make a scalar one-dimensional.
        tensor = np.array(value, dtype=dtype, order="C")
        self.constants.append(numpy_helper.from_array(tensor, name))
        return name

    def ints(self, *values: int) -> str:
        """A vector of int64: shapes and axes."""
        return self.constant(values, np.int64)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node of one output."""
        from onnx import helper

        name = self._name(kind)
        output = output or name
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}{kind}_{self._count}"


def build_graph(folder: ModelFolder) -> Any:
    """The graph of a folder's `model.safetensors`, as an `onnx.ModelProto` in fp32.

    Standard operators only. ONNX Runtime's own attention operator was no faster on
    texts of up to 256 tokens.

    Raises:
        ModelError: It is no BERT-family encoder, or weights are missing.
    """
    graph = Graph()
    append_pooling(graph, folder, append_layers(graph, folder, Weights(folder)))
    return finish(graph, [INPUT], OUTPUT, int(folder.config["hidden_size"]))


def append_layers(
    graph: Graph, folder: ModelFolder, weights: Weights, segments: str | None = None
) -> str:
    """The embeddings and all layers: token vectors (num_texts, num_tokens, hidden).

    Args:
        graph: Begins here.
        folder: Says what is built.
        weights: The folder's.
        segments: The input that says which text of a pair a token is of; None where
            every input is one text.
    """
    config = folder.config
    check_architecture(folder)
    hidden = int(config["hidden_size"])
    shape = graph.add("Shape", INPUT)
    embedded = _embeddings(graph, config, weights, segments)
    rows = graph.add("Reshape", embedded, graph.ints(-1, hidden))
    for layer in range(int(config["num_hidden_layers"])):
        at = f"encoder.layer.{layer}."
        rows = _attend(graph, config, weights, at, rows, shape)
        rows = _feed_forward(graph, config, weights, at, rows)
    return graph.add(
        "Reshape", rows, graph.add("Concat", shape, graph.ints(hidden), axis=0), output="tokens"
    )


def finish(graph: Graph, inputs: Sequence[str], output: str, width: int) -> Any:
    """The whole as an `onnx.ModelProto`: inputs of token numbers, one output (num_texts, width)."""
    from onnx import TensorProto, helper

    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "length"])
                for name in inputs
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["texts", width])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="penstock",
    )


def append_pooling(graph: Graph, folder: ModelFolder, tokens: str) -> None:
    """Make one vector per text of token vectors (num_texts, num_tokens, dim)."""
    if folder.pooling == "cls":
        pooled = graph.add("Gather", tokens, graph.constant(0, np.int64), axis=1)
    else:
        # A product with ones, not ReduceMean: ONNX Runtime adds up a single text in
        # another order than one of many, and the last bits would tell which it was.
        length = graph.add("Shape", INPUT, start=1, end=2)
        one_row = graph.add("Concat", graph.ints(1), graph.ints(1), length, axis=0)
        total = graph.add("MatMul", _ones(graph, one_row), tokens)
        mean = graph.add("Div", total, graph.add("Cast", length, to=1))
        pooled = graph.add("Squeeze", mean, graph.ints(1))
    append_normalization(graph, folder, pooled)


def _ones(graph: Graph, shape: str) -> str:
    from onnx import numpy_helper

    return graph.add(
        "ConstantOfShape", shape, value=numpy_helper.from_array(np.ones(1, np.float32))
    )


def append_normalization(graph: Graph, folder: ModelFolder, vectors: str) -> None:
    """Scale vectors (num_texts, dim) to length 1 where the folder asks for it."""
    if folder.normalize:
        graph.add("LpNormalization", vectors, axis=-1, p=2, output=OUTPUT)
    else:
        graph.add("Identity", vectors, output=OUTPUT)


def check_architecture(folder: ModelFolder) -> None:
    """Refuse what `build_graph` would build wrongly.

    Raises:
        ModelError: Another model type, activation or kind of positions.
    """
    config = folder.config
    found = {
        "model_type": config.get("model_type"),
        "position_embedding_type": config.get("position_embedding_type") or "absolute",
        "hidden_act": config.get("hidden_act", "gelu"),
    }
    expected = {
        "model_type": ("bert",),
        "position_embedding_type": ("absolute",),
        "hidden_act": _ACTIVATIONS,
    }
    for setting, value in found.items():
        if value not in expected[setting]:
            raise ModelError(
                str(folder.path),
                f"expected {setting} {' or '.join(expected[setting])} in config.json, found "
                f"{value!r}: export this model to ONNX as onnx/model.onnx in its folder, and "
                "Penstock uses that",
            )
    missing = {
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
    } - config.keys()
    if missing:
        raise ModelError(
            str(folder.path), f"expected {sorted(missing)} in config.json: fetch the model again"
        )


class Weights:
    """A folder's tensors by name, as float32."""

    def __init__(self, folder: ModelFolder) -> None:
        import safetensors

        reader: Any = safetensors  # its `deserialize` has no types
        self._file = folder.weights
        try:
            # Not `safetensors.numpy`: NumPy has no bfloat16, and it would refuse such a file.
            self._tensors = dict(reader.deserialize(folder.weights.read_bytes()))
        except (OSError, reader.SafetensorError) as err:
            raise ModelError(
                str(folder.weights), f"expected safetensors, found {err}: fetch the model again"
            ) from err
        last = "embeddings.word_embeddings.weight"
        self._prefix = next(
            (name.removesuffix(last) for name in self._tensors if name.endswith(last)), ""
        )

    def __call__(self, name: str) -> F32:
        """A tensor.

        Raises:
            ModelError: There is none of this name.
        """
        # A head beside the encoder goes without the encoder's prefix.
        found = self._tensors.get(self._prefix + name, self._tensors.get(name))
        if found is None:
            raise ModelError(
                str(self._file), f"expected a tensor {name!r}, found none: not a BERT encoder"
            )
        return _as_float32(found["data"], found["dtype"]).reshape(found["shape"])

    def dense(self, name: str) -> tuple[F32, F32]:
        """A linear layer's weight (outputs, inputs) and bias."""
        return self(f"{name}.weight"), self(f"{name}.bias")

    def norm(self, graph: Graph, config: Mapping[str, Any], name: str, values: str) -> str:
        """Values after a layer normalisation."""
        return graph.add(
            "LayerNormalization",
            values,
            graph.constant(self(f"{name}.LayerNorm.weight")),
            graph.constant(self(f"{name}.LayerNorm.bias")),
            axis=-1,
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
        )


def _as_float32(data: bytes, dtype: str) -> F32:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    if dtype not in kinds:
        raise ModelError(dtype, f"expected tensors of type {sorted([*kinds, 'BF16'])}")
    return np.frombuffer(data, kinds[dtype]).astype(np.float32)


def _embeddings(
    graph: Graph, config: Mapping[str, Any], weights: Weights, segments: str | None
) -> str:
    positions = weights("embeddings.position_embeddings.weight")
    if int(config.get("type_vocab_size", 0)) and segments is None:
        # A single text is all of segment 0.
        positions = positions + weights("embeddings.token_type_embeddings.weight")[0]
    words = graph.add("Gather", graph.constant(weights("embeddings.word_embeddings.weight")), INPUT)
    length = graph.add("Shape", INPUT, start=1, end=2)
    placed = graph.add("Slice", graph.constant(positions), graph.ints(0), length, graph.ints(0))
    summed = graph.add("Add", words, placed)
    if segments is not None:
        kinds = graph.constant(weights("embeddings.token_type_embeddings.weight"))
        summed = graph.add("Add", summed, graph.add("Gather", kinds, segments))
    return weights.norm(graph, config, "embeddings", summed)


def _attend(
    graph: Graph,
    config: Mapping[str, Any],
    weights: Weights,
    at: str,
    rows: str,
    shape: str,
) -> str:
    """Rows (num_texts * num_tokens, hidden) after one layer's attention."""
    heads = int(config["num_attention_heads"])
    size = int(config["hidden_size"]) // heads
    by_head = graph.ints(heads, size)
    name = f"{at}attention.self"
    scale = np.float32(1 / math.sqrt(size))
    query, query_bias = weights.dense(f"{name}.query")
    value, value_bias = weights.dense(f"{name}.value")
    queries = _linear(graph, rows, query * scale, query_bias * scale)
    keys = _linear(graph, rows, weights(f"{name}.key.weight"), None)
    values = _linear(graph, rows, value, None)
    context = _mix(graph, queries, keys, values, graph.add("Concat", shape, by_head, axis=0))
    out, out_bias = weights.dense(f"{at}attention.output.dense")
    merged = graph.add("Reshape", context, graph.ints(-1, heads * size))
    attended = _linear(graph, merged, out, out_bias + out @ value_bias)
    return weights.norm(graph, config, f"{at}attention.output", graph.add("Add", attended, rows))


def _mix(graph: Graph, queries: str, keys: str, values: str, by_head: str) -> str:
    """Attention; the result is (num_texts, num_tokens, heads, size)."""

    def split(rows: str, order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", rows, by_head), perm=order)

    scores = graph.add("MatMul", split(queries, [0, 2, 1, 3]), split(keys, [0, 2, 3, 1]))
    shares = graph.add("Softmax", scores, axis=-1)
    context = graph.add("MatMul", shares, split(values, [0, 2, 1, 3]))
    return graph.add("Transpose", context, perm=[0, 2, 1, 3])


def _feed_forward(
    graph: Graph, config: Mapping[str, Any], weights: Weights, at: str, rows: str
) -> str:
    wide = _linear(graph, rows, *weights.dense(f"{at}intermediate.dense"))
    _activate(graph, str(config.get("hidden_act", "gelu")), wide, ACTIVATED + at)
    narrow = _linear(graph, ACTIVATED + at, *weights.dense(f"{at}output.dense"))
    return weights.norm(graph, config, f"{at}output", graph.add("Add", narrow, rows))


def _linear(graph: Graph, values: str, weight: F32, bias: F32 | None) -> str:
    product = graph.add("MatMul", values, graph.constant(weight.T))
    if bias is None:
        return product
    # A row and not a vector: with a vector ONNX Runtime fuses bias and gelu into an
    # operator that takes twice the time of the two.
    return graph.add("Add", product, graph.constant(bias[np.newaxis]))


def _activate(graph: Graph, kind: str, values: str, output: str) -> None:
    """The activation in plain operators; ONNX Runtime fuses gelu into one."""
    if kind == "relu":
        graph.add("Relu", values, output=output)
        return
    if kind == "gelu":
        inner = graph.add("Erf", graph.add("Div", values, graph.constant(math.sqrt(2))))
    else:
        cube = graph.add("Pow", values, graph.constant(3))
        bent = graph.add("Add", values, graph.add("Mul", cube, graph.constant(0.044715)))
        inner = graph.add("Tanh", graph.add("Mul", bent, graph.constant(math.sqrt(2 / math.pi))))
    doubled = graph.add("Mul", values, graph.add("Add", inner, graph.constant(1)))
    graph.add("Mul", doubled, graph.constant(0.5), output=output)

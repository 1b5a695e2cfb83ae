"""The graphs that are built compute what the architecture says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_bert import HEADS, HIDDEN, LAYERS, MakeModel, Weights, random_weights

from penstock.errors import ModelError
from penstock.models import load_tokenizer, open_encoder
from penstock.models.folder import read_folder
from penstock.models.graph import INPUT, build_graph
from penstock.models.quantize import quantize_graph
from penstock.models.session import import_onnxruntime

Array = np.ndarray[Any, np.dtype[np.float64]]
TEXTS = ["w1 w2 w3", "w4", "", "w5 w6 w7 w8 w9 w10 unknown w11", "w3 w2 w1"]


def _gelu(x: Array) -> Array:
    erf = np.array([math.erf(value / math.sqrt(2)) for value in x.flat]).reshape(x.shape)
    return np.asarray(x * 0.5 * (1 + erf))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
}


def _forward(weights: Weights, ids: list[int], activation: str = "gelu") -> Array:
    """The encoder in plain NumPy: token vectors (num_tokens, HIDDEN)."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{at}.attention.self.{part}").reshape(len(ids), HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(HIDDEN // HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = (shares @ value).swapaxes(0, 1).reshape(len(ids), HIDDEN)
        attended = linear(context, f"{at}.attention.output.dense")
        x = norm(x + attended, f"{at}.attention.output")
        wide = ACTIVATIONS[activation](linear(x, f"{at}.intermediate.dense"))
        x = norm(x + linear(wide, f"{at}.output.dense"), f"{at}.output")
    return x


def _expected(
    folder: Path, weights: Weights, texts: list[str], activation: str = "gelu"
) -> list[Array]:
    tokenizer = load_tokenizer(str(folder))
    return [_forward(weights, tokenizer.encode(text).ids, activation) for text in texts]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_a_plain_forward_pass(make_model: MakeModel, activation: str) -> None:
    folder = make_model(normalize=False, hidden_act=activation)
    expected = [x.mean(0) for x in _expected(folder, random_weights(), TEXTS, activation)]

    with open_encoder(str(folder)) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def test_cls_pooling_takes_the_first_token(make_model: MakeModel) -> None:
    folder = make_model(normalize=False, pooling="cls_token")
    expected = [x[0] for x in _expected(folder, random_weights(), TEXTS)]

    with open_encoder(str(folder)) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def test_normalized_vectors_have_length_one(make_model: MakeModel) -> None:
    with open_encoder(str(make_model())) as encoder:
        lengths = np.linalg.norm(encoder.encode(TEXTS), axis=1)

        assert encoder.unit_length
        np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_a_prefix_of_tensor_names_changes_nothing(make_model: MakeModel) -> None:
    with (
        open_encoder(str(make_model("plain"))) as plain,
        open_encoder(str(make_model("prefixed", prefix="bert."))) as prefixed,
    ):
        np.testing.assert_array_equal(plain.encode(TEXTS), prefixed.encode(TEXTS))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_weights_are_read_as_fp32(make_model: MakeModel, dtype: str) -> None:
    folder = make_model(dtype=dtype, normalize=False)
    rounded = {
        name: values.astype(np.float16).astype(np.float32)
        if dtype == "F16"
        else (values.view(np.uint32) >> 16 << 16).view(np.float32)
        for name, values in random_weights().items()
    }
    expected = [x.mean(0) for x in _expected(folder, rounded, TEXTS)]

    with open_encoder(str(folder)) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def _run(model: Any, ids: Any) -> Any:
    return (
        import_onnxruntime().InferenceSession(model.SerializeToString()).run(None, {INPUT: ids})[0]
    )


def test_a_built_graph_has_standard_operators_only(make_model: MakeModel) -> None:
    graph = build_graph(read_folder(make_model()))

    assert {node.domain for node in graph.graph.node} == {""}


@pytest.mark.parametrize("rows_only", [True, False], ids=["rows", "any-shape"])
def test_unsigned_weights_give_the_vectors_of_signed_ones(
    make_model: MakeModel, rows_only: bool
) -> None:
    folder = read_folder(make_model())
    ids = np.arange(12).reshape(2, 6) + 4
    exact = _run(build_graph(folder), ids)
    signed, unsigned = (
        _run(quantize_graph(build_graph(folder), unsigned_weights=kind, rows_only=rows_only), ids)
        for kind in (False, True)
    )

    np.testing.assert_array_equal(signed, unsigned)
    assert not np.array_equal(signed, exact)
    assert (signed * exact).sum(1).min() > 0.99


@pytest.mark.parametrize(
    ("config", "found"),
    [
        pytest.param({"model_type": "xlm-roberta"}, "'xlm-roberta'", id="other-type"),
        pytest.param({"model_type": None}, "None", id="no-type"),
        pytest.param({"hidden_act": "silu"}, "'silu'", id="activation"),
        pytest.param({"position_embedding_type": "relative_key"}, "relative_key", id="positions"),
    ],
)
def test_refuses_architectures_that_it_does_not_know(
    make_model: MakeModel, config: dict[str, object], found: str
) -> None:
    with pytest.raises(ModelError, match=found):
        open_encoder(str(make_model(**config)))


def test_a_missing_tensor_is_named(make_model: MakeModel) -> None:
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]

    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        open_encoder(str(make_model(weights=weights)))


def test_weights_cut_short_are_an_error(make_model: MakeModel) -> None:
    folder = make_model()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ModelError, match="fetch the model again"):
        open_encoder(str(folder))

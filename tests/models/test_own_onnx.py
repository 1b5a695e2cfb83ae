"""A folder's own ONNX graph is used, and gives what the built one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_bert import HIDDEN, MakeModel

from penstock.errors import ModelError
from penstock.models import model_fingerprint, open_encoder
from penstock.models.folder import read_folder
from penstock.models.graph import INPUT, OUTPUT, build_graph

TEXTS = ["w1 w2 w3", "w4", "", "w5 w6 w7", "w3 w2 w1"]


def _save_own(folder: Path, output: str, place: str = "onnx/model.onnx", **changes: Any) -> None:
    """Rewrite the built graph as exporters write it: three inputs, tokens out."""
    import onnx
    from onnx import TensorProto, helper

    model = build_graph(read_folder(folder))
    graph = model.graph
    for name in changes.get("inputs", ("attention_mask", "token_type_ids")):
        value = helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "length"])
        graph.input.append(value)
        graph.node.append(helper.make_node("Identity", [name], [f"{name}_unused"]))
    inside = OUTPUT if output == "sentence_embedding" else "tokens"
    graph.node.append(helper.make_node("Identity", [inside], [output]))
    for node in graph.node:  # the name of our result is not in exporters' graphs
        for names in (node.input, node.output):
            names[:] = ["pooled" if name == OUTPUT else name for name in names]
    del graph.output[:]
    shape = ["texts", HIDDEN] if inside == OUTPUT else ["texts", "length", HIDDEN]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
    (folder / place).parent.mkdir(exist_ok=True)
    onnx.save(model, folder / place)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("output", ["last_hidden_state", "token_embeddings", "sentence_embedding"])
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_gives_the_vectors_of_the_built_graph(
    make_model: MakeModel, output: str, pooling: str, precision: Any
) -> None:
    folder = make_model(pooling=pooling)
    with open_encoder(str(folder), precision) as built:
        expected = built.encode(TEXTS)
    before = model_fingerprint(str(folder), precision)
    _save_own(folder, output)
    (folder / "model.safetensors").unlink()

    with open_encoder(str(folder), precision) as own:
        # In int8 a last bit that differs can move a rounding step.
        close = 1e-6 if precision == "fp32" else 2e-2
        np.testing.assert_allclose(own.encode(TEXTS), expected, atol=close)
    assert model_fingerprint(str(folder), precision) != before


def test_a_graph_beside_the_config_is_found(make_model: MakeModel) -> None:
    folder = make_model()
    _save_own(folder, "last_hidden_state", "model.onnx")

    assert read_folder(folder).weights == folder / "model.onnx"


def test_unknown_outputs_are_named(make_model: MakeModel) -> None:
    folder = make_model()
    _save_own(folder, "logits")

    with pytest.raises(ModelError, match="logits"):
        open_encoder(str(folder))


def test_unknown_inputs_are_named(make_model: MakeModel) -> None:
    folder = make_model()
    _save_own(folder, "last_hidden_state", inputs=("pixel_values",))

    with pytest.raises(ModelError, match="pixel_values"):
        open_encoder(str(folder))


def test_a_broken_graph_is_an_error(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "model.onnx").write_bytes(b"no graph")

    with pytest.raises(ModelError, match="expected an ONNX graph"):
        open_encoder(str(folder))


def test_the_graph_input_is_the_tokens_alone(make_model: MakeModel) -> None:
    from penstock.models.adapt import adapt_graph

    folder = make_model()
    _save_own(folder, "last_hidden_state")

    assert [value.name for value in adapt_graph(read_folder(folder)).graph.input] == [INPUT]

"""A cross-encoder gives what the architecture says, and the same whatever lies beside a text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_bert import (
    HEADS,
    HIDDEN,
    LAYERS,
    WORDS,
    Weights,
    random_weights,
    write_model,
)

from penstock.errors import ConfigError, ModelError
from penstock.models.cross_encoder import CrossEncoder, pair_graph
from penstock.models.folder import read_folder

QUERY = "w1 w2 w3"
TEXTS = ["w1 w2", "w9", "", "w5 w6 w7 w8 unknown", "w2 w1", "w1 w2 " * 30]


def _weights(seed: int = 0) -> Weights:
    """The tiny encoder's under `bert.`, with a pooler and a head of one label."""
    draw = np.random.default_rng(seed + 1)
    weights = {f"bert.{name}": values for name, values in random_weights(seed).items()}
    weights["bert.pooler.dense.weight"] = draw.normal(0, 0.3, (HIDDEN, HIDDEN)).astype(np.float32)
    weights["bert.pooler.dense.bias"] = draw.normal(0, 0.3, HIDDEN).astype(np.float32)
    weights["classifier.weight"] = draw.normal(0, 0.3, (1, HIDDEN)).astype(np.float32)
    weights["classifier.bias"] = draw.normal(0, 0.3, 1).astype(np.float32)
    return weights


def _make(folder: Path, **config: Any) -> Path:
    from tokenizers import Tokenizer, processors

    settings = {"id2label": {"0": "LABEL_0"}, "max_tokens": None, "weights": _weights()}
    write_model(folder, **(settings | config))
    for extra in ("modules.json", "sentence_bert_config.json"):  # an encoder's, not ours
        (folder / extra).unlink()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 24}))
    return folder


def _pair(query: str, text: str, longest: int = 24) -> tuple[list[int], list[int]]:
    """Token numbers and segments; the longer text is cut first."""
    known = {word: number for number, word in enumerate(WORDS)}
    first, second = ([known.get(word, 1) for word in each.split()] for each in (query, text))
    while len(first) + len(second) + 3 > longest:
        (first if len(first) > len(second) else second).pop()
    ids = [2, *first, 3, *second, 3]
    return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1)


def _expected(weights: Weights, query: str, text: str) -> float:
    """The model in plain NumPy."""
    w = {n.removeprefix("bert."): values.astype(np.float64) for n, values in weights.items()}
    ids, segments = _pair(query, text)

    def norm(x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][segments], "embeddings")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{part}").reshape(len(ids), HEADS, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(HIDDEN / HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, v).reshape(len(ids), HIDDEN)
        x = norm(x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output")
        wide = linear(x, f"{at}.intermediate.dense")
        wide = wide / 2 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + linear(wide, f"{at}.output.dense"), f"{at}.output")
    return float(linear(np.tanh(linear(x[0], "pooler.dense")), "classifier")[0])


def _save_onnx(folder: Path, *, mask: bool = True) -> None:
    """The built graph as exporters write it, in place of the weights."""
    import onnx
    from onnx import TensorProto, helper

    model = pair_graph(read_folder(folder))
    if mask:
        value = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["t", "l"])
        model.graph.input.append(value)
        model.graph.node.append(helper.make_node("Identity", ["attention_mask"], ["unused"]))
    (folder / "onnx").mkdir()
    onnx.save(model, folder / "onnx" / "model.onnx")
    (folder / "model.safetensors").unlink()


def test_scores_are_what_the_architecture_says(tmp_path: Path) -> None:
    scores = CrossEncoder(_make(tmp_path / "tiny"))(QUERY, TEXTS)

    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [_expected(_weights(), QUERY, t) for t in TEXTS], atol=1e-5)


def test_a_long_query_leaves_room_for_the_text(tmp_path: Path) -> None:
    query = "w4 w5 " * 50

    scores = CrossEncoder(_make(tmp_path / "tiny"))(query, ["w1", "w2 " * 50])

    expected = [_expected(_weights(), query, text) for text in ("w1", "w2 " * 50)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_score_does_not_depend_on_the_other_texts(tmp_path: Path, precision: Any) -> None:
    model = CrossEncoder(_make(tmp_path / "tiny"), precision=precision, threads=2)
    texts = [*TEXTS, *(f"w{i} w{i + 1} w{i + 2}" for i in range(40))]

    together = model(QUERY, texts)
    backwards = model(QUERY, texts[::-1])[::-1]
    alone = np.concatenate([model(QUERY, [text]) for text in texts])

    np.testing.assert_allclose(backwards, together, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(alone, together, rtol=1e-6, atol=1e-6)


def test_int8_is_close_to_fp32(tmp_path: Path) -> None:
    folder = _make(tmp_path / "tiny")

    exact, fast = (CrossEncoder(folder, precision=p)(QUERY, TEXTS) for p in ("fp32", "int8"))

    np.testing.assert_allclose(fast, exact, atol=0.05)


@pytest.mark.parametrize("mask", [True, False], ids=["with-mask", "without-mask"])
def test_a_folder_s_own_graph_gives_the_same(tmp_path: Path, mask: bool) -> None:
    folder = _make(tmp_path / "tiny")
    built = CrossEncoder(folder)(QUERY, TEXTS)
    _save_onnx(folder, mask=mask)

    np.testing.assert_allclose(CrossEncoder(folder)(QUERY, TEXTS), built, atol=1e-6)


def test_a_model_without_segments_reads_a_pair_as_one_text(tmp_path: Path) -> None:
    weights = _weights()
    kinds = weights["bert.embeddings.token_type_embeddings.weight"]
    alike = weights | {"bert.embeddings.token_type_embeddings.weight": np.stack([kinds[0]] * 2)}
    folder = _make(tmp_path / "tiny", type_vocab_size=1)

    scores = CrossEncoder(folder)(QUERY, TEXTS)

    np.testing.assert_allclose(scores, [_expected(alike, QUERY, t) for t in TEXTS], atol=1e-5)


def test_no_texts_give_no_scores(tmp_path: Path) -> None:
    assert CrossEncoder(_make(tmp_path / "tiny"))(QUERY, []).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        pytest.param({"id2label": {"0": "no", "1": "yes"}}, "found 2", id="two"),
        pytest.param({"id2label": None}, "found 2", id="none-named"),
    ],
)
def test_a_model_of_several_labels_is_refused(tmp_path: Path, labels: Any, found: str) -> None:
    with pytest.raises(ModelError, match=found):
        CrossEncoder(_make(tmp_path / "tiny", **labels))


def test_an_encoder_is_no_cross_encoder(tmp_path: Path) -> None:
    folder = _make(tmp_path / "tiny", weights=random_weights())

    with pytest.raises(ModelError, match=r"pooler\.dense"):
        CrossEncoder(folder)


def test_an_output_of_another_shape_is_refused(tmp_path: Path) -> None:
    import onnx

    folder = _make(tmp_path / "tiny")
    _save_onnx(folder)
    file = folder / "onnx" / "model.onnx"
    model = onnx.load(file)
    model.graph.output[0].name = "tokens"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, file)

    with pytest.raises(ModelError, match="one number a text"):
        CrossEncoder(folder)(QUERY, TEXTS)


def test_inputs_of_another_meaning_are_named(tmp_path: Path) -> None:
    import onnx

    folder = _make(tmp_path / "tiny")
    _save_onnx(folder)
    file = folder / "onnx" / "model.onnx"
    model = onnx.load(file)
    for value in model.graph.input:
        value.name = value.name.replace("attention_mask", "position_ids")
    for node in model.graph.node:
        node.input[:] = ["position_ids" if n == "attention_mask" else n for n in node.input]
    onnx.save(model, file)

    with pytest.raises(ModelError, match="position_ids"):
        CrossEncoder(folder)


def test_a_graph_that_is_none_is_named(tmp_path: Path) -> None:
    folder = _make(tmp_path / "tiny")
    (folder / "model.onnx").write_bytes(b"no graph")

    with pytest.raises(ModelError, match=r"model\.onnx"):
        CrossEncoder(folder)


@pytest.mark.parametrize(
    ("query", "texts", "named"),
    [
        pytest.param(None, ["w1"], "query", id="no-query"),
        pytest.param("w1", ["w2", None], r"texts\[1\]", id="null-text"),
        pytest.param("w1", "w2", "sequence of strings", id="one-string"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, query: Any, texts: Any, named: str) -> None:
    model = CrossEncoder(_make(tmp_path / "tiny"))

    with pytest.raises(ConfigError, match=named):
        model(query, texts)


@pytest.mark.parametrize(
    "settings", [{"precision": "bf16"}, {"threads": 0}], ids=["precision", "threads"]
)
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(ConfigError, match="must be"):
        CrossEncoder(_make(tmp_path / "tiny"), **settings)

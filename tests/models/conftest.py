"""A tiny BERT with random weights, and its forward pass in plain NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

F32 = npt.NDArray[np.float32]

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "##d", "word", "other", "."]

MakeModel = Callable[..., Path]


def random_weights(seed: int = 0) -> dict[str, F32]:
    """Every tensor of a BertModel of `CONFIG`, by its name in the checkpoint."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), 32),
        "embeddings.position_embeddings.weight": (40, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "embeddings.LayerNorm.weight": (32,),
        "embeddings.LayerNorm.bias": (32,),
    }
    for layer in range(2):
        at = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes |= {f"{at}{name}.weight": (32, 32), f"{at}{name}.bias": (32,)}
        shapes |= {f"{at}attention.output.dense.weight": (32, 32)}
        shapes |= {f"{at}attention.output.dense.bias": (32,)}
        shapes |= {
            f"{at}intermediate.dense.weight": (64, 32),
            f"{at}intermediate.dense.bias": (64,),
        }
        shapes |= {f"{at}output.dense.weight": (32, 64), f"{at}output.dense.bias": (32,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (32,), f"{at}{name}.bias": (32,)}
    return {n: random.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()}


def forward(weights: dict[str, F32], ids: list[int], *, pooling: str, normalize: bool) -> F32:
    """What the model gives for one sequence of tokens, in float64 NumPy; (32,)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm")
    for layer in range(2):
        at = f"encoder.layer.{layer}."
        parts = [_linear(x, w, f"{at}attention.self.{n}") for n in ("query", "key", "value")]
        query, key, value = (part.reshape(len(ids), 4, 8).transpose(1, 0, 2) for part in parts)
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(8)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), 32)
        attended = _linear(mixed, w, f"{at}attention.output.dense")
        x = _norm(x + attended, w, f"{at}attention.output.LayerNorm")
        inner = _linear(x, w, f"{at}intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
        x = _norm(x + _linear(inner, w, f"{at}output.dense"), w, f"{at}output.LayerNorm")
    vector = x.mean(0) if pooling == "mean" else x[0]
    vector = vector / np.linalg.norm(vector) if normalize else vector
    result: F32 = vector.astype(np.float32)
    return result


def _linear(x: Any, w: dict[str, Any], name: str) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Any, w: dict[str, Any], name: str) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write a model folder in the layout of sentence-transformers."""

    def make(
        *,
        name: str = "tiny",
        pooling: str = "mean",
        normalize: bool = True,
        seed: int = 0,
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
        modules = [("0", "Transformer", ""), ("1", "Pooling", "1_Pooling")]
        if normalize:
            modules.append(("2", "Normalize", "2_Normalize"))
        kind = "sentence_transformers.models."
        listed = [{"idx": int(i), "name": i, "path": p, "type": kind + t} for i, t, p in modules]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
        modes = {f"pooling_mode_{m}": m == pooling for m in ("mean_tokens", "cls_token")}
        modes |= {"pooling_mode_mean_tokens": pooling == "mean"}
        modes |= {"pooling_mode_cls_token": pooling == "cls"}
        pooled = {"word_embedding_dimension": 32, **modes}
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooled))
        save_file(random_weights(seed), str(folder / "model.safetensors"))
        _tokenizer().save(str(folder / "tokenizer.json"))
        return folder

    return make


def _tokenizer() -> Any:
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer

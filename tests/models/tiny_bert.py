"""A tiny random BERT in a folder of sentence-transformers' layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, HEADS, LAYERS, WIDE, POSITIONS = 32, 4, 2, 64, 40
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60)), "Capital"]

MakeModel = Callable[..., Path]
Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def random_weights(seed: int = 0) -> Weights:
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return draw.normal(0, 0.3, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": normal(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
    }
    norms = ["embeddings"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        sizes = {
            f"{at}.attention.self.query": (HIDDEN, HIDDEN),
            f"{at}.attention.self.key": (HIDDEN, HIDDEN),
            f"{at}.attention.self.value": (HIDDEN, HIDDEN),
            f"{at}.attention.output.dense": (HIDDEN, HIDDEN),
            f"{at}.intermediate.dense": (WIDE, HIDDEN),
            f"{at}.output.dense": (HIDDEN, WIDE),
        }
        for name, shape in sizes.items():
            weights |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0])}
        norms += [f"{at}.attention.output", f"{at}.output"]
    for name in norms:
        weights[f"{name}.LayerNorm.weight"] = 1 + normal(HIDDEN)
        weights[f"{name}.LayerNorm.bias"] = normal(HIDDEN)
    return weights


def write_tokenizer(file: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Folders come with settings of this kind, which must not be used.
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(6)
    tokenizer.save(str(file))


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_model(
    folder: Path,
    *,
    pooling: str = "mean_tokens",
    normalize: bool = True,
    max_tokens: int | None = 24,
    lowercase: bool = False,
    dtype: str = "F32",
    prefix: str = "",
    weights: Weights | None = None,
    **config: object,
) -> Path:
    settings = {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": WIDE,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
    }
    _write_json(folder / "config.json", settings | config)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    kinds += [("2_Normalize", "Normalize")] if normalize else []
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds
    ]
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{pooling}": True})
    sentence = {"max_seq_length": max_tokens, "do_lower_case": lowercase}
    _write_json(folder / "sentence_bert_config.json", sentence)
    write_tokenizer(folder / "tokenizer.json")
    _write_weights(folder / "model.safetensors", weights or random_weights(), dtype, prefix)
    return folder


def _write_weights(file: Path, weights: Weights, dtype: str, prefix: str) -> None:
    """Write the format's own bytes: NumPy has no bf16 that a library would take."""
    kinds: dict[str, Callable[[Any], bytes]] = {
        "F32": lambda values: values.tobytes(),
        "F16": lambda values: values.astype(np.float16).tobytes(),
        "BF16": lambda values: (values.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
    }
    header: dict[str, object] = {}
    body = b""
    for name, values in weights.items():
        data = kinds[dtype](values)
        header[prefix + name] = {
            "dtype": dtype,
            "shape": values.shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)

"""Name the bytes and settings that decide a vector, without loading a model."""

from __future__ import annotations

import hashlib
import json

from penstock.models import graph, quantize
from penstock.models.cache import file_hash
from penstock.models.folder import ModelFolder, read_folder, resolve


def model_fingerprint(name: str, precision: str = "fp32") -> str:
    """Name of the function from text to vector: 32 hexadecimal digits.

    Covers the weights, the tokenizer, pooling, normalisation, the longest input,
    the precision and the revision of the code that builds the graph.

    Raises:
        ModelError: No such model.
        MissingExtra: The package that would bring it is not installed.

    Cost: one read of the weights the first time, about a millisecond after that.
    """
    return fingerprint_of(read_folder(resolve(name)), precision)


def tokenizer_fingerprint(name: str) -> str:
    """Name of the function from text to tokens: 32 hexadecimal digits.

    Raises:
        ModelError: No such model.
        MissingExtra: The package that would bring it is not installed.
    """
    folder = read_folder(resolve(name))
    return _digest({"tokenizer": file_hash(folder.tokenizer), "lowercase": folder.lowercase})


def fingerprint_of(folder: ModelFolder, precision: str) -> str:
    """See `model_fingerprint`."""
    external = folder.weights.with_name(folder.weights.name + "_data")
    return _digest(
        {
            "weights": [folder.weights.suffix, file_hash(folder.weights)],
            "external": file_hash(external) if external.is_file() else None,
            "config": {key: folder.config[key] for key in _SHAPING if key in folder.config},
            "tokenizer": file_hash(folder.tokenizer),
            "lowercase": folder.lowercase,
            "pooling": folder.pooling,
            "normalize": folder.normalize,
            "max_tokens": folder.max_tokens,
            "precision": precision,
            "builder": [graph.REVISION, quantize.REVISION if precision == "int8" else 0],
        }
    )


# What of config.json shapes the graph.
_SHAPING = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "type_vocab_size",
)


def _digest(facts: dict[str, object]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:32]

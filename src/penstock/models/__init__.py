"""Tokenizers and encoders, and what names a model's bytes."""

from penstock.models.encoder import Encoder, Precision, open_encoder
from penstock.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from penstock.models.folder import DEFAULT_MODEL, resolve
from penstock.models.tokenizer import load_tokenizer, open_tokenizer, tokenizer_json

__all__ = [
    "DEFAULT_MODEL",
    "Encoder",
    "Precision",
    "load_tokenizer",
    "model_fingerprint",
    "open_encoder",
    "open_tokenizer",
    "resolve",
    "tokenizer_fingerprint",
    "tokenizer_json",
]

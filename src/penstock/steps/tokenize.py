"""Turn each kept document into tokens to train on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError, ModelError

_REVISION = 1
"""Bumped when the tokens of some text change."""

I64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, repr=False)
class Tokenize:
    """Turn each kept document into tokens, for `Store.loader`.

    The tokens of a text depend on the tokenizer's bytes and these settings alone, so a text
    that is unchanged is never tokenized twice. No special tokens are added but those named here.

    Raises:
        ConfigError: A token is not in the tokenizer's vocabulary.
        ModelError: There is no such tokenizer.
    """

    tokenizer: str | os.PathLike[str]
    """A JSON file of the `tokenizers` library or its content, a folder that holds a
    `tokenizer.json`, or a model's name as `Embed` takes it."""

    start_of_document: str | None = None
    """A token put before each document, such as ``"<s>"``."""

    end_of_document: str | None = None
    """A token put after each document, such as ``"<|endoftext|>"``."""

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, (str, os.PathLike)) or not os.fspath(self.tokenizer):
            raise ConfigError("Tokenize.tokenizer", self.tokenizer, "must name a tokenizer")
        for name in ("start_of_document", "end_of_document"):
            token = getattr(self, name)
            if token is not None and not self._mentions(token):
                raise _unknown(name, token)

    def _mentions(self, token: str) -> bool:
        """Whether its letters are in the JSON: tells nearly every mistake without parsing."""
        written = (json.dumps(token, ensure_ascii=only) for only in (False, True))
        return any(text.encode() in self.json for text in written)

    @cached_property
    def json(self) -> bytes:
        """The tokenizer as the `tokenizers` library reads it."""
        from penstock.models import tokenizer_json

        return tokenizer_json(self.tokenizer)

    @cached_property
    def tokenizer_hash(self) -> str:
        """32 hexadecimal digits that name the tokenizer's bytes."""
        return hashlib.sha256(self.json).hexdigest()[:32]

    def fingerprint(self) -> str:
        """What the tokens of a text depend on: the tokenizer's bytes and the settings."""
        facts = [_REVISION, self.tokenizer_hash, self.start_of_document, self.end_of_document]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def open(self) -> DocumentTokenizer:
        """What makes tokens; runs in any number of threads at once.

        Raises:
            ModelError: The tokenizer cannot be read.
            ConfigError: A token is not in its vocabulary.
        """
        from penstock.models import open_tokenizer

        return DocumentTokenizer(self, open_tokenizer(self.json, self._name))

    @property
    def _name(self) -> str:
        name = os.fspath(self.tokenizer)
        return f"<JSON {self.tokenizer_hash[:12]}>" if name.lstrip().startswith("{") else name

    def __repr__(self) -> str:
        return (
            f"Tokenize(tokenizer={self._name!r}, start_of_document={self.start_of_document!r}, "
            f"end_of_document={self.end_of_document!r})"
        )


class DocumentTokenizer:
    """Makes documents' tokens.

    Attributes:
        dtype: uint16 where every token of the vocabulary fits, else uint32.
    """

    def __init__(self, step: Tokenize, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        self.dtype = np.dtype(np.uint16 if largest < 1 << 16 else np.uint32)
        self._before, self._after = (
            self._only(name, getattr(step, name))
            for name in ("start_of_document", "end_of_document")
        )

    def _only(self, name: str, token: str | None) -> Tokens:
        number = None if token is None else self._tokenizer.token_to_id(token)
        if token is not None and number is None:
            raise _unknown(name, token)
        return np.array([] if number is None else [number], self.dtype)

    def encode(self, text: pa.Array) -> tuple[Tokens, I64]:
        """The tokens of some texts.

        Returns:
            All tokens one after another, of `dtype`, and where each text's begin,
            (num_texts + 1,) int64.

        Raises:
            ModelError: The tokenizer cannot make tokens of a text.

        Cost: 3 MB of text a second and core for byte-level BPE, without the GIL.
        """
        try:
            found = self._tokenizer.encode_batch_fast(text.to_pylist(), add_special_tokens=False)
        except Exception as err:  # the library raises plain Exception
            raise ModelError(
                "Tokenize",
                f"the tokenizer fails on a document ({err}): it may lack a token for "
                "what it does not know; train one with `penstock tokenizer train`",
            ) from err
        parts, lengths = [np.empty(0, self.dtype)], [0]
        for encoding in found:
            ids = encoding.ids
            tokens = np.fromiter(ids, self.dtype, len(ids))
            parts += [self._before, tokens, self._after]
            lengths.append(len(self._before) + len(tokens) + len(self._after))
        return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)


def _unknown(name: str, token: str) -> ConfigError:
    return ConfigError(f"Tokenize.{name}", token, "must be a token of the tokenizer's vocabulary")

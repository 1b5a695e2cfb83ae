"""Load a model's tokenizer."""

from __future__ import annotations

import os
from typing import Any

from penstock.errors import ModelError
from penstock.models.folder import ModelFolder, read_folder, resolve


def load_tokenizer(name: str) -> Any:
    """A model's `tokenizers.Tokenizer`, which neither cuts nor pads.

    Raises:
        ModelError: No such model, or its tokenizer cannot be read.
        MissingExtra: The package that would bring it is not installed.
    """
    return tokenizer_of(read_folder(resolve(name)))


def tokenizer_of(folder: ModelFolder) -> Any:
    """See `load_tokenizer`."""
    # Penstock runs tokenizers in its own threads. Its private pool would add as many
    # threads as the host has cores, and must not be used before a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, normalizers

    try:
        tokenizer = Tokenizer.from_file(os.fspath(folder.tokenizer))
    except Exception as err:  # the library raises plain Exception
        raise ModelError(
            str(folder.tokenizer), f"expected a tokenizer, found {err}: fetch the model again"
        ) from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if folder.lowercase:
        first = normalizers.Lowercase()
        after = tokenizer.normalizer
        tokenizer.normalizer = normalizers.Sequence([first, after]) if after else first
    return tokenizer

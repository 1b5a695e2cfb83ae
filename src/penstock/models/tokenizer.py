"""Load a model's tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
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
    return _opened(os.fspath(folder.tokenizer), folder.tokenizer.read_bytes(), folder.lowercase)


def tokenizer_json(source: str | os.PathLike[str]) -> bytes:
    """The JSON of a tokenizer, as `tokenizers` reads it.

    Args:
        source: A file, a folder that holds `tokenizer.json`, a model's name as `resolve`
            takes it, or the JSON itself.

    Raises:
        ModelError: It is none of these.
        MissingExtra: The package that would bring the model is not installed.
    """
    name = os.fspath(source)
    if name.lstrip().startswith("{"):
        return name.encode()
    path = Path(name)
    if path.is_file():
        return path.read_bytes()
    if path.suffix == ".json":
        raise ModelError(name, "expected a tokenizer's file, found none: check the path")
    if (path / "tokenizer.json").is_file() and not (path / "config.json").is_file():
        return (path / "tokenizer.json").read_bytes()
    folder = read_folder(resolve(name))
    if not folder.lowercase:
        return folder.tokenizer.read_bytes()
    lowered: str = tokenizer_of(folder).to_str()
    return lowered.encode()


def open_tokenizer(json: bytes, name: str) -> Any:
    """The `tokenizers.Tokenizer` of what `tokenizer_json` gave, which neither cuts nor pads.

    Raises:
        ModelError: It is no tokenizer; the message calls it by `name`.
    """
    return _opened(name, json, False)


def _opened(name: str, json: bytes, lowercase: bool) -> Any:
    # Penstock runs tokenizers in its own threads. Its private pool would add as many
    # threads as the host has cores, and must not be used before a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, normalizers

    try:
        tokenizer = Tokenizer.from_buffer(json)
    except Exception as err:  # the library raises plain Exception
        raise ModelError(
            name, f"expected a tokenizer, found {err}: fetch the model or the file again"
        ) from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lowercase:
        first = normalizers.Lowercase()
        after = tokenizer.normalizer
        tokenizer.normalizer = normalizers.Sequence([first, after]) if after else first
    return tokenizer

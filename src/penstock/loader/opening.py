"""Open a folder of shards: find out what they are, and what in them are tokens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigError
from penstock.loader.cache import NodeCache
from penstock.loader.formats.checks import Expected
from penstock.loader.formats.find import find_reader, units_of_manifest
from penstock.loader.formats.manifest import read_manifest
from penstock.loader.formats.units import Reader, Unit
from penstock.loader.places import Folder, place_of
from penstock.loader.shards import Shards, as_shard_error
from penstock.loader.tokenizing import COLUMN, TokenizingReader, text_column
from penstock.models.cache import cache_folder
from penstock.steps.tokenize import Tokenize

_NAMES_OF_TOKENS = ("tokens", "input_ids", "token_ids", "tokens.npy")
_NAMES_OF_DOCUMENTS = ("doc_id", "id", "__key__")


def open_shards(
    url: str | os.PathLike[str],
    *,
    tokens: str | None = None,
    dtype: npt.DTypeLike | None = None,
    text: str | None = None,
    tokenizer: Tokenize | str | os.PathLike[str] | None = None,
    doc_id: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> Shards:
    """Open a folder of shards: of MDS, WebDataset, Parquet or Lance; an export or another's.

    Everything that can be known without reading the shards is checked now: that
    all are there and as long as their index says. A shard's hash is checked when
    it is first read.

    Args:
        url: A folder, or a URL that fsspec opens.
        tokens: The column with the token ids; found by itself in an export, and where it
            is named ``tokens``, ``input_ids`` or ``token_ids``, or is the only one with arrays.
        dtype: What the tokens are, where the column holds plain bytes, such as ``"uint16"``.
        text: In place of `tokens`, the column of text that `tokenizer` makes tokens of; found by
            itself where it is named ``text`` or is the only one.
        tokenizer: Of shards without tokens: a `Tokenize` step, or what that takes as its
            tokenizer. A shard is tokenized once a node, when it is first read.
        doc_id: The column that names a sample; else ``doc_id``, ``id`` or the shard and row.
        cache: Folder for what is fetched from a URL or tokenized; any number of processes
            may share it.
            `$PENSTOCK_CACHE/shards` by default.
        cache_bytes: Most bytes kept there; half of what is free on the disk by default.

    Raises:
        ConfigError: There are no shards, or it is not clear which column has the tokens.
        ShardError: A shard is missing, or is not as long as its index says.
    """
    node = _node_cache(cache, cache_bytes)
    place = place_of(url, node)
    manifest = read_manifest(place)
    reader = find_reader(place, manifest)
    units = reader.units() if manifest is None else units_of_manifest(manifest)
    if not sum(unit.num_rows - len(unit.dead) for unit in units):
        raise ConfigError("url", os.fspath(url), "must hold shards with samples; these have none")
    if manifest is not None and isinstance(place, Folder):
        for name, num_bytes, digest in manifest.indexes:
            place.fetch(Expected(name, num_bytes, {"sha256": digest}))
    for file in {unit.file.name: unit.file for unit in units}.values():
        place.check(file)
    with as_shard_error(units[0]):
        if tokenizer is not None:
            step = tokenizer if isinstance(tokenizer, Tokenize) else Tokenize(tokenizer=tokenizer)
            of = text_column(reader.columns(units[0]), text)
            reader, tokens = TokenizingReader(place, reader, of, step, node), COLUMN
        column, kind = _tokens_column(reader, units[0], tokens, dtype)
    return Shards(
        place=place,
        reader=reader,
        units=tuple(units),
        manifest=manifest,
        column=column,
        kind=kind,
        names=_names_column(reader, units[0], doc_id),
    )


def _node_cache(folder: str | os.PathLike[str] | None, max_bytes: int | None) -> NodeCache:
    path = Path(folder) if folder is not None else cache_folder() / "shards"
    if max_bytes is not None and max_bytes < 1:
        raise ConfigError("cache_bytes", max_bytes, "must be positive")
    if max_bytes is None:
        disk = path
        while not disk.exists():
            disk = disk.parent
        max_bytes = shutil.disk_usage(disk).free // 2
    return NodeCache(path, max_bytes)


def _tokens_column(
    reader: Reader, unit: Unit, wanted: str | None, dtype: npt.DTypeLike | None
) -> tuple[str, np.dtype[Any]]:
    """Which column has the tokens, and of what type they are."""
    columns = reader.columns(unit)
    known = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    arrays = [name for name, kind in columns.items() if kind == "numbers"]
    if wanted is None:
        named = [name for name in _NAMES_OF_TOKENS if name in arrays]
        if not arrays:
            problem = f"there is no column of token ids in {known}; give a tokenizer for the text"
            raise ConfigError("tokens", None, problem)
        if not named and len(arrays) != 1:
            raise ConfigError("tokens", None, f"must name the column of token ids among {known}")
        wanted = (named or arrays)[0]
    if columns.get(wanted) not in ("numbers", "bytes"):
        raise ConfigError("tokens", wanted, f"must name a column of token ids among {known}")
    if columns[wanted] == "bytes":
        if dtype is None:
            raise ConfigError(
                "dtype", None, f"must say what the bytes of {wanted!r} are: 'uint16'?"
            )
        kind = np.dtype(dtype)
    else:
        kind = reader.open(unit).values(wanted).dtype
    if kind.kind not in "iu":
        raise ConfigError("tokens", wanted, f"must hold integers, found {kind}")
    return wanted, kind


def _names_column(reader: Reader, unit: Unit, wanted: str | None) -> str | None:
    columns = reader.columns(unit)
    if wanted is None:
        return next((name for name in _NAMES_OF_DOCUMENTS if columns.get(name) == "text"), None)
    if columns.get(wanted) != "text":
        known = ", ".join(name for name, kind in columns.items() if kind == "text")
        raise ConfigError("doc_id", wanted, f"must name a column of text; there are {known}")
    return wanted

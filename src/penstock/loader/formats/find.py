"""Which format a folder of shards has, and who reads it."""

from __future__ import annotations

import json

from penstock.errors import ConfigError
from penstock.loader.formats.lance import LanceReader
from penstock.loader.formats.manifest import FormatName, Manifest
from penstock.loader.formats.mds_reader import INDEX, MdsReader, unit_of
from penstock.loader.formats.parquet import ParquetReader, units_of
from penstock.loader.formats.units import Reader, Unit
from penstock.loader.formats.webdataset import TarReader
from penstock.loader.places import Place


def find_reader(place: Place, manifest: Manifest | None) -> Reader:
    """Who reads the shards in a folder.

    Raises:
        ConfigError: There are no shards of a format that we know.
    """
    kind = manifest.kind if manifest is not None else _kind(place)
    if kind == "mds":
        return MdsReader(place)
    if kind == "lance":
        return LanceReader(place)
    return TarReader(place) if kind == "webdataset" else ParquetReader(place)


def units_of_manifest(manifest: Manifest) -> list[Unit]:
    """The units of an export, with what is dead in them."""
    units = []
    # A tar must know that its fields are ours; a file of Lance that it is not a fragment.
    tar = True if manifest.kind == "webdataset" else None
    for shard in manifest.shards:
        if manifest.kind == "mds":
            units.append(unit_of(shard.entry, shard.dead))
        elif manifest.kind == "parquet":
            units += units_of(shard.file, shard.groups, shard.dead)
        else:
            units.append(Unit(shard.file, shard.num_rows, dead=shard.dead, detail=tar))
    return units


def _kind(place: Place) -> FormatName:
    index = place.read(INDEX)
    if index is not None and _is_mds(index):
        return "mds"
    names = place.names()
    if any(name.endswith(".tar") for name in names):
        return "webdataset"
    if any(name.endswith(".parquet") for name in names):
        return "parquet"
    if any(name.startswith("_versions/") for name in names):
        return "lance"
    raise ConfigError(
        "url",
        place.url,
        "must be a folder with shards: index.json of MDS, .tar files of WebDataset, .parquet "
        f"files, or a Lance data set; found {_some(list(names))}",
    )


def _is_mds(index: bytes) -> bool:
    try:
        return "shards" in json.loads(index)
    except (ValueError, TypeError):
        return True  # damaged: its reader says so


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")

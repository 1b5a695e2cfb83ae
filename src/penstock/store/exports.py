"""Which exports were made of a store, so that it can be told where a document went.

`STORE/exports/` has a file for each folder that was exported to. Whether a
folder is still there is asked when someone wants to know what it holds.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import StoreError
from penstock.store.places import Place, replace_file

if TYPE_CHECKING:
    from penstock.loader.formats.manifest import Manifest

_FOLDER = "exports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One export of a store.

    Attributes:
        path: Its folder.
        format: Of its shards.
        run: The run that was exported last.
        where: The condition; None for every kept document.
        finished: Seconds since the epoch.
    """

    path: str
    format: str
    run: str
    where: str | None
    finished: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One document in one shard of an export.

    Attributes:
        doc_id: The document.
        path: The folder of the export.
        shard: The file in it.
        row: Its row there.
        counts: False for a tombstone: the bytes are there, and no reader of ours gives them.
    """

    doc_id: str
    path: str
    shard: str
    row: int
    counts: bool


def read_exports(store: Place) -> list[Export]:
    """The exports of a store, by path.

    Raises:
        StoreError: A record is damaged.
    """
    found = []
    for path in (store / _FOLDER).glob("*.json"):
        try:
            found.append(Export(**json.loads(path.read_bytes())))
        except FileNotFoundError:
            continue  # deleted between listing and reading
        except (ValueError, TypeError) as err:
            problem = f"a record of an export is damaged ({err}); delete it and export again"
            raise StoreError(str(path), problem) from err
    return sorted(found, key=lambda export: export.path)


def record_export(store: Place, out: Path, manifest: Manifest, where: str | None) -> None:
    """Note an export, in place of an earlier one into the same folder."""
    export = Export(
        path=str(out), format=manifest.kind, run=manifest.run, where=where, finished=time.time()
    )
    folder = store / _FOLDER
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(export.path.encode()).hexdigest()[:16]
    replace_file(folder / f"{name}.json", json.dumps(asdict(export), indent=1).encode() + b"\n")


def exported_shards(store: Place, doc_ids: Sequence[str]) -> list[Holding]:
    """In which shards of which exports some documents lie, tombstones too.

    Exports whose folder is gone, or not of this machine, hold nothing that can be told.

    Raises:
        ShardError: The manifest of an export is damaged.
    """
    # These load kernels, and opening a store does not need them.
    from penstock.loader.formats.manifest import read_manifest, rows_of
    from penstock.loader.places import Folder

    wanted = pa.array(doc_ids, pa.string())
    found = []
    for export in read_exports(store):
        place = Folder(Path(export.path))
        manifest = read_manifest(place)
        for shard in manifest.shards if manifest is not None else ():
            names = rows_of(place, shard)["doc_id"]
            dead = set(shard.dead)
            mask = pc.is_in(names, value_set=wanted).to_numpy()
            for row in mask.nonzero()[0].tolist():
                name = names[row].as_py()
                found.append(
                    Holding(
                        doc_id=name,
                        path=export.path,
                        shard=shard.name,
                        row=row,
                        counts=row not in dead,
                    )
                )
    return found

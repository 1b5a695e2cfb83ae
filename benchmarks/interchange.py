"""Do other libraries read what `penstock export` writes? Prints a digest of all that was read.

    penstock export corpus out --format mds
    python benchmarks/interchange.py out penstock
    PEER/python benchmarks/interchange.py out streaming      # the same digest

Run with an interpreter that has the library. What is read is each document's id, text and tokens.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str, list[int]]


def _penstock(folder: Path) -> Iterator[Row]:
    from penstock import open_shards

    for table in open_shards(folder).tables(["doc_id", "text", "tokens"]):
        for row in table.to_pylist():
            yield row["doc_id"], row["text"], row["tokens"]


def _streaming(folder: Path) -> Iterator[Row]:
    """MosaicML Streaming, which also compares the hashes."""
    from streaming import StreamingDataset

    with tempfile.TemporaryDirectory() as local:
        data = StreamingDataset(
            remote=str(folder), local=local, shuffle=False, batch_size=1, validate_hash="sha256"
        )
        for i in range(len(data)):
            row: Any = data[i]
            yield row["doc_id"], row["text"], row["tokens"].tolist()


def _webdataset(folder: Path) -> Iterator[Row]:
    import webdataset

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    for row in webdataset.WebDataset(urls, shardshuffle=False).decode():
        yield row["json"]["doc_id"], row["txt"], row["tokens.npy"].tolist()


def _energon(folder: Path) -> Iterator[Row]:
    """Megatron-Energon 7.4: samples by their place in its index, each member by its own."""
    import io

    import numpy as np
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.itar_reader import SqliteITarEntryReader

    place = EPath(str(folder))
    samples = SqliteITarEntryReader(place)
    members = SqliteITarEntryReader(place, key_is_full_entryname=True)
    for key, *_ in list(samples.list_all_samples()):
        parts = {name: members[f"{key}.{name}"][0] for name in ("json", "txt", "tokens.npy")}
        assert all(samples[key][name] == data for name, data in parts.items())
        tokens = np.load(io.BytesIO(parts["tokens.npy"])).tolist()
        yield json.loads(parts["json"])["doc_id"], parts["txt"].decode(), tokens


def _pyarrow(folder: Path) -> Iterator[Row]:
    import pyarrow.dataset

    for row in pyarrow.dataset.dataset(folder, format="parquet").to_table().to_pylist():
        yield row["doc_id"], row["text"], row["tokens"]


def _lance(folder: Path) -> Iterator[Row]:
    import lance

    for row in lance.dataset(str(folder)).to_table().to_pylist():
        yield row["doc_id"], row["text"], row["tokens"]


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "penstock": _penstock,
    "streaming": _streaming,
    "webdataset": _webdataset,
    "energon": _energon,
    "pyarrow": _pyarrow,
    "lance": _lance,
}


def main() -> None:
    folder, reader = Path(sys.argv[1]).absolute(), sys.argv[2]
    rows = sorted(READERS[reader](folder))
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    print(f"{reader}: {len(rows):,} documents, {sum(len(r[2]) for r in rows):,} tokens, {digest}")


if __name__ == "__main__":
    main()

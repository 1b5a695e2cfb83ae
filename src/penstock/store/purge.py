"""Rewrite what still holds the bytes of forgotten documents, so that no file has a trace.

Deleting marks rows as gone; their bytes stay in files that earlier runs share.
Purging publishes a run whose files hold live rows alone. It is whole once the
runs before it, and the files that only they name, are dropped: `gc` does both.
"""

from __future__ import annotations

import time
from dataclasses import replace

from penstock.index import IndexManifest
from penstock.index.update import purge_index
from penstock.store.forget import open_tables
from penstock.store.lease import Lease
from penstock.store.manifest import publish, read_manifest, run_names, starting_point
from penstock.store.object_lease import ObjectLease
from penstock.store.places import Place, attempt_name, flush, known_files, local_files
from penstock.store.receipts import read_receipts, write_receipt
from penstock.store.tables import named_versions
from penstock.tokens import TokensManifest, purge_tokens


def is_purge_due(store: Place) -> bool:
    """Whether documents were forgotten of which files may still hold the bytes."""
    return any(receipt.purged is None for receipt in read_receipts(store))


def purge(store: Place, lease: Lease | ObjectLease) -> str:
    """Publish the last run again in files that hold nothing but its rows.

    The progress of an interrupted build is given up: it may hold what was forgotten.

    Returns:
        The new run's name. Every run before it may hold traces and has to be dropped
        with the files that only they name; then `settle_receipts` is to be called.
    """
    last = read_manifest(store / "runs" / f"{run_names(store)[-1]}.json")
    started = time.time()
    known = known_files(store)
    run = starting_point(store).run
    tables = open_tables(store, last)
    for table in tables.values():
        table.purge()
    index = last.index
    if index is not None:
        before = IndexManifest.from_json(index)
        files = local_files(store / "index", before.names())
        index = purge_index(files.path, before, attempt_name(store, run)).to_json()
    tokens = last.tokens
    if tokens is not None:
        held = TokensManifest.from_json(tokens)
        files = local_files(store / "tokens", held.names())
        tokens = purge_tokens(files.path, held, attempt_name(store, run)).to_json()
    flush(store, known)
    lease.check()
    counts = last.counts | {"run": run}
    again = replace(
        last,
        run=run,
        tables=named_versions(tables),
        index=index,
        tokens=tokens,
        counts=counts,
        started=started,
    )
    publish(store, replace(again, finished=time.time()))
    return run


def settle_receipts(store: Place, run: str) -> None:
    """Note on every receipt that is open that no trace is left since this run."""
    for receipt in read_receipts(store):
        if receipt.purged is None:
            write_receipt(store, replace(receipt, purged=run))

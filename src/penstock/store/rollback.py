"""Publish an earlier run's state again, as the newest run."""

from __future__ import annotations

import time
from dataclasses import replace

from penstock.store.lease import take_lease
from penstock.store.manifest import newest_versions, publish, read_manifest, starting_point
from penstock.store.places import Place, flush, known_files
from penstock.store.tables import Table, named_versions
from penstock.store.tags import find_run


def roll_back(store: Place, run: str | int) -> str:
    """Make what an earlier run published the state of a new run, from which the next build goes on.

    The runs between stay as they are. Progress of an interrupted run is given up.

    Args:
        store: Where the store lies.
        run: The earlier run's number or a tag.

    Returns:
        The new run's name.

    Raises:
        ConfigError: `run` is neither a number nor a tag.
        StoreError: There is no such run.
        LeaseError: Another process is writing the store.

    Guarantees: atomic and durable, as any publication; every run that was kept is still whole.
    Cost: nothing is copied but the small file that names each table's fragments.
    """
    with take_lease(store) as lease:
        earlier = read_manifest(store / "runs" / f"{find_run(store, run)}.json")
        name = starting_point(store).run
        started = time.time()
        known = known_files(store)
        # A table's versions are one line: what comes after an old one begins with a copy of it.
        tables = {
            table: Table(store / f"{table}.lance", earlier.tables[table], newest)
            for table, newest in newest_versions(store, earlier.tables).items()
        }
        flush(store, known)
        lease.check()
        counts = earlier.counts | {"rolled_back_to": earlier.run}
        again = replace(
            earlier, run=name, tables=named_versions(tables), counts=counts, started=started
        )
        publish(store, replace(again, finished=time.time()))
    return name

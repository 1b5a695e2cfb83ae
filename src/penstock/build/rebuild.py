"""Make one derived part of a store anew, its index or its tokens, and publish it as a new run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from penstock.errors import StoreError
from penstock.store.lease import take_lease
from penstock.store.manifest import (
    Manifest,
    current_run,
    publish,
    read_manifest,
    run_name,
    save_checkpoint,
    starting_point,
)
from penstock.store.places import Place, attempt_name, flush, known_files, open_place

Make = Callable[[Place, Manifest, str], tuple[dict[str, Any], int]]
"""From a store, its last run and what to name new files by: the part's manifest, and a count."""


def rebuild(
    store: str | os.PathLike[str], part: Literal["index", "tokens"], missing: str, make: Make
) -> int:
    """Publish the last run again with one part made anew; what `make` counted.

    Args:
        store: The store.
        part: The part's name in the manifest.
        missing: What to say of a run that has none.
        make: Makes it.

    Raises:
        StoreError: There is no store, or its last run lacks the part.
        LeaseError: Another process is writing the store.
    """
    place = open_place(store)
    current = current_run(place)
    if current is None:
        raise StoreError(str(place), "there is no store here")
    with take_lease(place) as lease:
        known = known_files(place)
        start = starting_point(place)
        last = read_manifest(place / "runs" / f"{current}.json")
        if getattr(last, part) is None:
            raise StoreError(str(place), missing)
        started = time.time()
        made, count = make(place, last, attempt_name(place, start.run))
        flush(place, known)
        lease.check()
        rebuilt = replace(last, started=started, finished=time.time(), run=start.run)
        publish(place, _with(rebuilt, part, made))
        if start.flow != last.flow or start.tables != last.tables:
            # An interrupted run's progress is good for the run after this one.
            following = replace(start, run=run_name(int(start.run) + 1))
            save_checkpoint(place, _with(following, part, made))
        return count


def _with(manifest: Manifest, part: str, made: dict[str, Any]) -> Manifest:
    return replace(manifest, index=made) if part == "index" else replace(manifest, tokens=made)

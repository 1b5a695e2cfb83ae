"""Drop old runs, and every file that no run names.

What a run names is known without a list of its own: of a table, the files of
its version, as Lance tells them; of the index and other parts, the files and
folders whose name stands somewhere in the manifest. All else in those folders
is garbage: files of dropped runs, versions between two runs, and what killed
writers have left. Manifests go first, so wherever this stops, every run that is
still there is whole, and the next time goes on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError, StoreError
from penstock.store.copies import LISTING
from penstock.store.lease import take_lease
from penstock.store.manifest import (
    Manifest,
    current_run,
    read_manifest,
    run_names,
    starting_point,
)
from penstock.store.pins import is_pinned
from penstock.store.places import Place, delete_files, file_sizes
from penstock.store.purge import is_purge_due, purge, settle_receipts
from penstock.store.receipts import read_receipts
from penstock.store.tables import files_by_version, version_file
from penstock.store.tags import read_tags, remove_tag

ALWAYS_KEPT = 2
"""Runs that a build keeps, however much they take."""
_HISTORY_BYTES = 16 << 20
"""What all older runs alone may take in a small store; in others, as much as the last run."""

_PARTS = ("index/", "tokens/")
_VERSION = re.compile(r"[^/]+\.lance/_versions/\d+\.manifest")
_FILE = re.compile(r"[^/]+\.lance/(data|_deletions|_transactions)/|index/|tokens/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What was dropped, or would be.

    Attributes:
        dropped: Names of the runs that are gone.
        kept: Names of those that are left, oldest first.
        files: How many files.
        bytes: How large they were.
    """

    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    files: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The same in JSON types."""
        return asdict(self)


def collect_garbage(store: Place, *, keep: int = 1, dry_run: bool = False) -> Garbage:
    """Drop all but the newest runs and those with a tag, and every file that no run names.

    Where documents were forgotten, the last run is first published anew in files
    without them, and all runs before go; those with a tag too, if they may have
    a trace.

    Args:
        store: Where the store lies.
        keep: How many of the newest runs stay.
        dry_run: Only say what would go.

    Raises:
        ConfigError: `keep` is below 1.
        StoreError: There is no store.
        LeaseError: Another process is writing the store.
    """
    if keep < 1:
        raise ConfigError("keep", keep, "must be at least 1: the last run stays in any case")
    if current_run(store) is None:
        raise StoreError(str(store), "there is no store here")
    with take_lease(store) as lease:
        if dry_run or not is_purge_due(store):
            return sweep(store, run_names(store)[-keep:], dry_run=dry_run)
        last = purge(store, lease)
        for tag, run in read_tags(store).items():
            if _has_traces(store, run):
                remove_tag(store, tag)
        found = sweep(store, [last])
        settle_receipts(store, last)
        return found


def _has_traces(store: Place, run: str) -> bool:
    """Whether a run's files may have bytes of documents that were forgotten."""
    due = [receipt for receipt in read_receipts(store) if receipt.purged is None]
    # Those that came after share files with those before.
    return any(run in receipt.runs or int(run) >= int(receipt.run) for receipt in due)


def sweep(store: Place, keep: Collection[str], *, dry_run: bool = False) -> Garbage:
    """Drop every run but these and those with a tag. The caller holds the lease."""
    names = run_names(store)
    stays = {*keep, *read_tags(store).values()}
    dropped = tuple(name for name in names if name not in stays)
    kept = tuple(name for name in names if name in stays)
    # The progress of an interrupted run is the state that the next one starts from.
    start = starting_point(store)
    manifests = [*_manifests(store, kept), start]
    sizes = file_sizes(store)
    gone = {f"runs/{name}.json" for name in dropped}
    if not dry_run:
        # Should a run's manifest come back after a power cut, it would miss its files.
        delete_files(store, gone)
    gone |= {name for name in sizes if _is_leftover(store, name, start)}
    versions = {name for name in sizes if _VERSION.fullmatch(name)} - _versions(manifests)
    if not dry_run:
        # One that a power cut left empty would keep Lance from telling the others' files.
        delete_files(store, versions)
    gone |= versions
    named = set().union(*named_files(store, manifests, sizes))
    gone |= {name for name in sizes if _FILE.match(name) and name not in named}
    if not dry_run:
        delete_files(store, gone)
    freed = sum(sizes.get(name, 0) for name in gone)
    return Garbage(dropped=dropped, kept=kept, files=len(gone), bytes=freed)


def trim(store: Place) -> Garbage | None:
    """Drop the oldest runs where old runs take more than the last one. The caller holds the lease.

    The newest two stay, those with a tag, and those that somebody has open. What
    tags keep does not count as old. On an object store nothing is dropped, as
    nobody can tell what is open.

    Cost: where nothing is to be dropped, it looks at the size of every file.
    """
    names = run_names(store)
    if len(names) <= ALWAYS_KEPT or not isinstance(store, Path):
        return None
    sizes = file_sizes(store)
    tagged = set(read_tags(store).values()) & set(names)
    last, *others = named_files(store, _manifests(store, [names[-1], *tagged]), sizes)
    limit = max(_HISTORY_BYTES, _total(last, sizes))
    counted = last.union(*others)
    if _total(sizes.keys() - counted, sizes) <= limit:
        return None
    backwards = [name for name in reversed(names) if name not in tagged]
    found = named_files(store, _manifests(store, backwards), sizes)
    history = 0
    keep: list[str] = []
    for name, files in zip(backwards, found, strict=True):
        history += _total(files - counted, sizes)
        # Down to half, so that it is a while to the next time.
        within = len(keep) < ALWAYS_KEPT or history <= limit // 2
        if within or is_pinned(store / "runs" / f"{name}.json"):
            keep.append(name)
            counted |= files
    return sweep(store, keep)


def named_files(
    store: Place, manifests: Sequence[Manifest], files: Iterable[str]
) -> list[set[str]]:
    """Those of a store's files that each manifest names."""
    named: list[set[str]] = [set() for _ in manifests]
    for table in sorted(set().union(*(manifest.tables for manifest in manifests))):
        versions = [manifest.tables.get(table) for manifest in manifests]
        found = files_by_version(store / f"{table}.lance", {v for v in versions if v is not None})
        for mine, version in zip(named, versions, strict=True):
            if version is not None:
                mine |= {f"{table}.lance/{name}" for name in found[version]}
    # What lists the files of a part on an object store stays as long as they do.
    parts = {n: _known_as(n.removesuffix(LISTING)) for n in files if n.startswith(_PARTS)}
    for mine, manifest in zip(named, manifests, strict=True):
        texts = _texts(asdict(manifest))
        mine |= {name for name, known_as in parts.items() if not texts.isdisjoint(known_as)}
        mine.add(f"runs/{manifest.run}.json")
    return named


def _manifests(store: Place, names: Iterable[str]) -> list[Manifest]:
    return [read_manifest(store / "runs" / f"{name}.json") for name in names]


def _is_leftover(store: Place, name: str, start: Manifest) -> bool:
    """A temporary file, a manifest that was never published, a checkpoint of no use."""
    if name == "runs/checkpoint.json":
        return (store / name).read_bytes() != start.to_bytes()
    number = name.removeprefix("runs/").removesuffix(".json")
    unpublished = number.isdigit() and int(number) >= int(start.run)
    return unpublished or (name.endswith(".tmp") and ("/" not in name or name.startswith("runs/")))


def _versions(manifests: Sequence[Manifest]) -> set[str]:
    return {
        f"{table}.lance/{version_file(version)}"
        for manifest in manifests
        for table, version in manifest.tables.items()
    }


def _known_as(name: str) -> set[str]:
    """What a manifest may call a file of a part by.

    That is its path, or the path of a folder it lies in, from the part's folder
    or from the store's.
    """
    part, *names = name.split("/")
    ways = ["/".join(names[: i + 1]) for i in range(len(names))]
    return {*ways, *(f"{part}/{way}" for way in ways)}


def _texts(value: Any) -> set[str]:
    """Every text in a manifest."""
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def _total(names: Iterable[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in names)

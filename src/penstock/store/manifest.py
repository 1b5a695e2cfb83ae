"""What a run publishes: a manifest that names the version of every table and index file.

    runs/000007.json     one per published run, never changed
    runs/current         the name of the last published run; replacing it publishes
    runs/checkpoint.json progress of a run that has not published yet

A checkpoint is a manifest that readers do not see. The next writer starts from
it as from any other consistent state, so interrupted work is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from penstock.errors import FormatError, StoreError
from penstock.store.places import Place, attempt_name, replace_file

FORMAT = 1
"""Version of the store's layout; a store of a newer one is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One run, as published.

    Attributes:
        run: The run's name: its number, six digits or more.
        tables: Version of each table that exists, by name.
        flow: What was run: source, steps, their settings and fingerprints.
        index: What `penstock.index.IndexManifest.to_json` gave; None without chunks.
        tokens: What `penstock.tokens.TokensManifest.to_json` gave; None without tokens.
        counts: What the run did and what the store holds after it.
        reports: What decisions tell of the whole corpus, by their signature's name.
        started: Seconds since the epoch.
        finished: Seconds since the epoch.
        penstock: Version of the library that wrote it.
        format: Version of the store's layout.
    """

    run: str
    tables: dict[str, int] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    reports: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    penstock: str = ""
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """As JSON, indented for people."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"


def read_manifest(path: Place) -> Manifest:
    """Read one manifest.

    Raises:
        FormatError: A newer Penstock wrote it.
        StoreError: It is missing or damaged.
    """
    try:
        facts = json.loads(path.read_bytes())
        format_found = int(facts["format"])
    except FileNotFoundError as err:
        raise StoreError(str(path), "the run's manifest is missing; see `penstock runs`") from err
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(
            str(path), f"the run's manifest is damaged ({err}); open an earlier run with --run"
        ) from err
    if format_found > FORMAT:
        raise FormatError(
            str(path.parent.parent),
            f"this store has format {format_found}, and this Penstock reads up to format "
            f"{FORMAT}. Upgrade: pip install -U penstock",
        )
    known = {item.name for item in fields(Manifest)}
    return Manifest(**{name: value for name, value in facts.items() if name in known})


def current_run(store: Place) -> str | None:
    """Name of the last published run; None before the first, and where there is no store."""
    try:
        # On an object store what follows a `-` names the writer.
        return (store / "runs/current").read_text().strip().partition("-")[0] or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def run_names(store: Place) -> list[str]:
    """Names of the published runs, oldest first."""
    current = current_run(store)
    names = (path.stem for path in (store / "runs").glob("*.json") if path.stem.isdigit())
    return sorted((n for n in names if current and int(n) <= int(current)), key=int)


def newest_versions(store: Place, tables: Iterable[str]) -> dict[str, int]:
    """The newest version of each table that a published run names; 0 where none does.

    Cost: reads runs from the newest back, until each table was named: one, as a rule.
    """
    found = dict.fromkeys(tables, 0)
    missing = {name for name in found if (store / f"{name}.lance").is_dir()}
    for run in reversed(run_names(store)):
        if not missing:
            break
        named = read_manifest(store / "runs" / f"{run}.json").tables
        # Versions grow from run to run: a rollback, too, makes new ones.
        found.update((name, named[name]) for name in missing & set(named))
        missing -= set(named)
    return found


def run_name(run: str | int) -> str:
    """A run's name from its number, ``7`` or ``"7"`` or ``"000007"``."""
    return f"{int(run):06d}"


def next_run(run: str | None) -> str:
    """The name of the run after this one; of the first, after None."""
    return run_name(int(run) + 1 if run else 1)


def publish(store: Place, manifest: Manifest) -> None:
    """Make a run the current one. All that it names must be durable already.

    Guarantees: atomic and durable; the run has not happened until ``runs/current``
    is replaced, and all of it has after. On an object store both puts hold only
    while nobody else has put either since the writer's lease began.

    Raises:
        LeaseError: Another writer has published, or has taken this store over.
    """
    replace_file(store / "runs" / f"{manifest.run}.json", manifest.to_bytes())
    replace_file(store / "runs/current", attempt_name(store, manifest.run).encode() + b"\n")
    # Should it come back after a power cut, its run's name tells that it is of no use.
    (store / "runs/checkpoint.json").unlink(missing_ok=True)


def save_checkpoint(store: Place, manifest: Manifest) -> None:
    """Keep a run's progress for the next writer; readers do not see it."""
    replace_file(store / "runs/checkpoint.json", manifest.to_bytes())


def starting_point(store: Place) -> Manifest:
    """The state that a new run builds on: a checkpoint of an interrupted run, else the last run.

    Its `run` is the name that the new run publishes under.
    """
    name = next_run(current_run(store))
    try:
        checkpoint = read_manifest(store / "runs/checkpoint.json")
    except FormatError:
        raise
    except StoreError:
        checkpoint = None
    if checkpoint is not None and checkpoint.run == name:
        return checkpoint
    return after_last_run(store)


def after_last_run(store: Place) -> Manifest:
    """The state of the last run, under the name of the one that is to follow it."""
    current = current_run(store)
    name = next_run(current)
    if current is None:
        return Manifest(run=name)
    last = read_manifest(store / "runs" / f"{current}.json")
    return Manifest(
        run=name,
        tables=last.tables,
        flow=last.flow,
        index=last.index,
        tokens=last.tokens,
        reports=last.reports,
    )

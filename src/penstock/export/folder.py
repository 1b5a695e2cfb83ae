"""The folder of an export: what stands there, and how the next state replaces it.

Shards and the files that list their documents come first, durable and under
names that were never used before. Then the index of the format, by rename; then
the manifest, by rename, which makes the export what it says. Last, files that
it no longer names are deleted; the manifest remembers them until the next one,
so that an interrupted deletion is finished then.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from penstock.errors import ConfigError, ShardError
from penstock.export.indexes import forget_old_versions, write_indexes
from penstock.loader.formats.manifest import (
    CHECKPOINT,
    FOLDER,
    MANIFEST,
    Manifest,
    manifest_from,
    read_manifest,
)
from penstock.loader.places import Folder
from penstock.store.files import fsync_folder, replace_file


def make_folders(out: Path) -> None:
    """Make the folder of an export, durably.

    Raises:
        ConfigError: Something else is in it.
    """
    ours = out / FOLDER
    if not ours.is_dir():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                "out", str(out), "must be a new or empty folder, or an earlier export"
            )
        (ours / "rows").mkdir(parents=True)
        for folder in (ours, out, out.parent):
            fsync_folder(folder)


def starting_point(out: Path) -> Manifest | None:
    """What a new export goes on from: one that was interrupted, else the published one.

    Raises:
        ShardError: The published manifest is damaged.
    """
    published = read_manifest(Folder(out))
    data = Folder(out).read(CHECKPOINT)
    if data is None:
        return published
    try:
        found = manifest_from(data, CHECKPOINT)
    except ShardError:
        return published  # a power cut left it so
    if published is not None and found.next_number < published.next_number:
        return published
    return found


def save_checkpoint(out: Path, manifest: Manifest) -> None:
    """Keep how far an export came; all that it names is durable."""
    replace_file(out / CHECKPOINT, manifest.to_bytes())


def publish(out: Path, manifest: Manifest) -> None:
    """Make a manifest the export; all shards that it names are durable.

    Guarantees: atomic and durable. Until the manifest is renamed into place the export is
        what it was, after that it is what the manifest says.
    """
    manifest = replace(manifest, indexes=tuple(write_indexes(out, manifest)))
    replace_file(out / MANIFEST, manifest.to_bytes())
    for name in manifest.retired:
        (out / name).unlink(missing_ok=True)
    (out / CHECKPOINT).unlink(missing_ok=True)
    if manifest.kind == "lance" and manifest.retired:
        forget_old_versions(out)
    _sweep(out)


def _sweep(out: Path) -> None:
    """Delete what a killed export left half written: files with our own ending alone."""
    for folder in (out, out / FOLDER, out / FOLDER / "rows"):
        for entry in os.scandir(folder):
            if entry.name.endswith(".tmp") and entry.is_file():
                os.unlink(entry.path)

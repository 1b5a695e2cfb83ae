"""A real documentation tree at two dates: only what changed is read, and no trace is left.

The slice in `tests/data` has files changed, added, deleted and renamed. For a whole tree
name a folder with `v1`, `v2` and `CHANGES_v1_v2.tsv` in `PENSTOCK_TWO_TREES`; with `-s` the
test shows the counts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.guarantees.stores import assert_stores_equal
from tests.models.tiny_bert import write_model

import penstock as ps

pytestmark = pytest.mark.slow

TREES = Path(os.environ.get("PENSTOCK_TWO_TREES", "tests/data/powershell_changes"))
if not TREES.is_absolute():
    TREES = Path(__file__).parents[2] / TREES

QUERIES = ("install a module", "Get-CimInstance", "remove the alias", '"parameter set"', "wher")


def changes() -> list[list[str]]:
    """What was done, and to which file; of a renamed one, its old and its new name."""
    lines = (TREES / "CHANGES_v1_v2.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines]


def apply_changes(tree: Path) -> None:
    """Make a copy of `v1` a copy of `v2`, touching nothing that did not change."""
    for what, *names in changes():
        if what[0] in "DR":
            (tree / names[0]).unlink()
        if what[0] in "AMR":
            target = tree / names[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TREES / "v2" / names[-1], target)


def hashes(store: Path) -> list[bytes]:
    """Of every chunk's text."""
    chunks = ps.Store.open(store).chunks(["chunk_hash"])
    found: list[bytes] = chunks["chunk_hash"].to_pylist()
    return found


@pytest.mark.slow
def test_only_what_changed_is_read_and_embedded_and_the_store_equals_a_fresh_one(
    memory: Path,
) -> None:
    root = memory / "real"
    tree, store = root / "tree", root / "store"
    shutil.copytree(TREES / "v1", tree)
    flow = ps.Flow(
        source=ps.files(tree),
        steps=[
            ps.Normalize(),
            ps.ExactDedup(),
            ps.MinHashDedup(),
            ps.Chunk(),
            ps.Embed(model=str(write_model(root / "model"))),
        ],
    )
    first = flow.run(store)
    known = set(hashes(store))
    apply_changes(tree)
    report = flow.run(store)
    fresh = flow.run(root / "fresh")
    counts = report.counts
    new = [each for each in hashes(store) if each not in known]
    seconds = [round(run.seconds["total"], 2) for run in (first, report, fresh)]
    print(f"\nfirst, second and fresh run: {seconds} s\n{counts}")

    kinds = [what[0] for what, *_ in changes()]
    assert counts.items_read == sum(kind in "AMR" for kind in kinds)
    assert counts.items_removed == sum(kind in "DR" for kind in kinds)
    assert counts.items_unchanged == counts.items_listed - counts.items_read
    assert counts.items_listed == sum(len(names) for *_, names in os.walk(tree))
    # A text that is new in several documents at once may be embedded for each.
    assert len(set(new)) <= counts.chunks_embedded <= len(new)
    assert counts.chunks_embedded < fresh.counts.chunks_embedded
    assert_stores_equal(store, root / "fresh", QUERIES)

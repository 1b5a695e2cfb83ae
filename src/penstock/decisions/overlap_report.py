"""What `Decontaminate` loaded, indexed, scanned and found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penstock.decisions.eval_sets import EvalSet
from penstock.decisions.overlap import Covered, Index


@dataclass(frozen=True, slots=True)
class SetReport:
    """What became of one evaluation set.

    Attributes:
        name: What verdicts call it.
        path: Its file.
        items: How many it has.
        items_whole: Of those, how many have fewer words than a run and match as a whole.
        items_too_short: How many are never looked for, for they have too few words.
        runs: Distinct runs of words that are looked for.
        planted: Items that the self-test planted and found.
        documents_hit: Documents that hold an item of it.
        items_hit: Items that a document holds.
    """

    name: str
    path: str
    items: int
    items_whole: int
    items_too_short: int
    runs: int
    planted: int
    documents_hit: int
    items_hit: int


@dataclass(frozen=True, slots=True)
class OverlapReport:
    """What `Decontaminate` loaded, indexed, scanned and found.

    Attributes:
        method: What counts as a hit.
        run_words: Words in a run.
        min_words: Fewest words of an item that is looked for.
        documents: How many were scanned.
        documents_hit: How many hold an item of any set.
        documents_below: How many others hold runs of an item, but only common ones or too few.
        runs: Distinct runs over all sets.
        runs_ignored: Those that too many documents hold.
        sets: One by one.
    """

    method: str
    run_words: int
    min_words: int
    documents: int
    documents_hit: int
    documents_below: int
    runs: int
    runs_ignored: int
    sets: tuple[SetReport, ...]

    @classmethod
    def of(cls, facts: dict[str, Any]) -> OverlapReport:
        """The report from its JSON object."""
        sets = tuple(SetReport(**one) for one in facts["sets"])
        return cls(**{**facts, "sets": sets})

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_text(self) -> str:
        """As a few lines for people."""
        lines = [
            f"{self.method}: {self.documents:,} documents scanned, {self.documents_hit:,} hold "
            f"an item, {self.documents_below:,} others only common runs or too few; "
            f"{self.runs:,} runs of {self.run_words} words indexed, "
            f"{self.runs_ignored:,} ignored as common"
        ]
        width = max(len(one.name) for one in self.sets)
        lines.extend(
            f"  {one.name:<{width}}  {one.documents_hit:,} documents hold {one.items_hit:,} "
            f"of {one.items:,} items; {one.runs:,} runs; {one.items_whole:,} items match as "
            f"a whole, {one.items_too_short:,} of fewer than {self.min_words} words are not "
            f"looked for; self-test: {one.planted:,} of {one.planted:,} planted items found"
            for one in self.sets
        )
        return "\n".join(lines)


def summarize(
    index: Index,
    sets: Sequence[EvalSet],
    method: str,
    num_documents: int,
    num_with_runs: int,
    num_common: int,
    found: Covered,
) -> OverlapReport:
    """The report on what was found."""
    run_sets = index.sets[index.items]
    run_keys = np.repeat(np.arange(len(index.keys)), np.diff(index.posts))
    reports = []
    for place, one in enumerate(sets):
        lengths = index.lengths[index.sets == place]
        is_its = index.sets[found.items] == place
        is_whole = (lengths >= index.least) & (lengths < index.size)
        reports.append(
            SetReport(
                name=one.title,
                path=one.place,
                items=len(lengths),
                items_whole=int(is_whole.sum()),
                items_too_short=int((lengths < index.least).sum()),
                runs=len(np.unique(run_keys[run_sets == place])),
                planted=index.planted[place],
                documents_hit=len(np.unique(found.documents[is_its])),
                items_hit=len(np.unique(found.items[is_its])),
            )
        )
    return OverlapReport(
        method=method,
        run_words=index.size,
        min_words=index.least,
        documents=num_documents,
        documents_hit=(hit := len(np.unique(found.documents))),
        documents_below=num_with_runs - hit,
        runs=len(index.keys),
        runs_ignored=num_common,
        sets=tuple(reports),
    )

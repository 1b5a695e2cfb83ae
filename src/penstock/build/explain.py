"""What a run would do, and why: the source and the flow against what the store recorded.

Reads the source's listing, the manifest and narrow columns; changes nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.changes import ITEMS_TABLE, Changes, find_changes
from penstock.build.documents import reusable
from penstock.build.plan import Plan, step_name
from penstock.records import FAILURES
from penstock.store.manifest import Manifest, current_run, starting_point
from penstock.store.places import Place
from penstock.store.tables import open_table

_NAMED = ("reader", "chain", "shaped", "decisions", "cut", "embed", "index", "tokens")
_EXAMPLES = 5
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of work that a run would do.

    Attributes:
        name: What is done.
        count: How often, as far as it can be told before; None where it depends on what is read.
        of: Of how many there are now.
        why: The reasons; none where nothing is to do.
        examples: Some of the items or documents.
    """

    name: str
    count: int | None
    of: int
    why: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """A step that is not as it was in the last run.

    Attributes:
        step: Its name.
        change: ``added``, ``removed``, ``settings``, ``code`` (the settings are the same) or
            ``order``.
        settings: By name, what they were and what they are; None where there was or is none.
    """

    step: str
    change: str
    settings: dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `Flow.run` would do, and why.

    Attributes:
        run: The last published run; None before the first.
        interrupted: Whether the run goes on with the progress of one that was interrupted.
        steps: Steps that are not as they were.
        fingerprints: Of what results depend on, those that differ: what they were and are.
        work: What is to do, in the order in which it is done.
    """

    run: str | None
    interrupted: bool
    steps: tuple[StepChange, ...]
    fingerprints: dict[str, tuple[Any, Any]]
    work: tuple[Work, ...]

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)

    def to_text(self) -> str:
        """As a few lines for people."""
        lines = [_step_text(step) for step in self.steps]
        width = max(len(work.name) for work in self.work)
        for work in self.work:
            known = "some" if work.count is None else f"{work.count:,}"
            count = f"{known} of {work.of:,}" if work.why else "nothing"
            why = ["; ".join(work.why)] if work.why else []
            lines.append(f"{work.name:<{width}}  {': '.join([count, *why])}")
            if work.examples:
                lines.append(" " * (width + 2) + ", ".join(work.examples))
        return "\n".join(lines)


def explain_run(plan: Plan, place: Place, *, verify: bool = False) -> Explanation:
    """See `penstock.Flow.explain`."""
    facts = _Facts(plan, place, verify=verify)
    was, now = facts.flow, plan.describe()
    return Explanation(
        run=current_run(place),
        interrupted=facts.interrupted,
        steps=_step_changes(was.get("steps", []), now["steps"]),
        fingerprints={n: (was.get(n), now[n]) for n in _NAMED if was.get(n) != now[n]},
        work=(*_reading(facts), *_computing(facts), *_making(facts)),
    )


class _Facts:
    """What the store recorded and what the source lists."""

    def __init__(self, plan: Plan, place: Place, *, verify: bool) -> None:
        self.plan, self.place, self.verify = plan, place, verify
        self.start: Manifest = starting_point(place)
        self.flow = self.start.flow
        self.interrupted = (place / "runs/checkpoint.json").exists()
        self.listing = plan.source.list()
        self.recorded = self._rows("items", ITEMS_TABLE.names, ITEMS_TABLE)
        failed = self._rows("failures", FAILURES.names, FAILURES)
        self.same_chain = self.flow.get("chain") == plan.chain_fingerprint
        again = failed.filter(failed["transient"]) if self.same_chain else failed
        self.retry = pc.unique(again["item"].combine_chunks())
        self.changes: Changes = find_changes(
            self.listing, self.recorded, plan.reader, retry=self.retry, verify=verify
        )
        schema = pa.schema([("item", pa.string()), ("fingerprint", pa.string())])
        self.documents = self._rows("documents", schema.names, schema)

    def _rows(self, name: str, columns: list[str], schema: pa.Schema) -> pa.Table:
        version = self.start.tables.get(name)
        if version is None:
            return schema.empty_table()
        return open_table(self.place / f"{name}.lance", version).to_table(columns=columns)

    def columns(self) -> frozenset[str]:
        """Names of the columns of the documents table that are as the plan has them."""
        version = self.start.tables.get("documents")
        if version is None:
            return frozenset()
        have = open_table(self.place / "documents.lance", version).schema
        wanted = self.plan.documents_schema
        return frozenset(
            n
            for n in wanted.names
            if n in have.names and have.field(n).type == wanted.field(n).type
        )

    def num_rows(self, name: str) -> int:
        """Rows of a table."""
        version = self.start.tables.get(name)
        if version is None:
            return 0
        return int(open_table(self.place / f"{name}.lance", version).count_rows())

    @property
    def gone(self) -> pa.Array:
        """Items whose documents are read again or taken out."""
        return pa.concat_arrays([self.changes.stale, self.changes.removed])


def _reading(facts: _Facts) -> tuple[Work, ...]:
    """Items that are read, by why; and documents taken out."""
    items, recorded, stale = facts.listing.items, facts.recorded, facts.changes.stale
    place = pc.index_in(stale, value_set=recorded["item"].combine_chunks())
    listed = items.filter(pc.is_in(items["item"], value_set=stale)).sort_by("item")
    assert listed["item"].combine_chunks().equals(stale)
    is_new = place.is_null()
    moved = pc.not_equal(
        listed["version"].combine_chunks(), recorded["version"].take(place).combine_chunks()
    )
    other = pc.not_equal(recorded["reader"].take(place).combine_chunks(), facts.plan.reader)
    reasons = [
        ("new", is_new),
        ("changed", pc.fill_null(moved, False)),
        (f"the source's settings changed, {_source_change(facts)}", pc.fill_null(other, False)),
        ("failed before", pc.is_in(stale, value_set=facts.retry)),
        ("to verify", pa.array([facts.verify] * len(stale), pa.bool_())),
    ]
    why, left, examples = [], pa.array([True] * len(stale), pa.bool_()), []
    for reason, holds in reasons:
        mine = pc.and_(left, holds)
        count = int(pc.sum(mine).as_py() or 0)
        if count:
            why.append(f"{count:,} {reason}")
            examples += stale.filter(mine)[:_EXAMPLES].to_pylist()
            left = pc.and_not(left, holds)
    removed = facts.changes.removed
    lost = pc.is_in(facts.documents["item"], value_set=removed)
    return (
        Work(name="items to read", count=len(stale), of=len(items), why=tuple(why),
             examples=tuple(examples[:_EXAMPLES])),
        Work(name="documents to take out", count=int(pc.sum(lost).as_py() or 0),
             of=len(facts.documents),
             why=(f"{len(removed):,} items are gone",) if len(removed) else (),
             examples=tuple(removed[:_EXAMPLES].to_pylist())),
    )  # fmt: skip


def _source_change(facts: _Facts) -> str:
    was, now = facts.flow.get("source", ""), repr(facts.plan.source)
    return f"{was} -> {now}" if was != now else "or its code"


def _computing(facts: _Facts) -> tuple[Work, ...]:
    """Documents and signatures that are computed again from the store."""
    plan, documents = facts.plan, facts.documents
    stays = pc.invert(pc.is_in(documents["item"], value_set=facts.gone))
    other = pc.and_(stays, pc.not_equal(documents["fingerprint"], plan.chain_fingerprint))
    count = int(pc.sum(other).as_py() or 0)
    reuse = reusable(facts.flow, plan, facts.columns())
    certain = {known.column: known.certain for known in reuse.known}
    found = []
    why: tuple[str, ...] = ()
    if count and reuse.settled:
        why = ("the decisions changed; texts and metadata stay as they are",)
    elif count:
        why = ("the steps that make texts, or what they are made by, changed",)
    found.append(Work(name="documents to compute", count=count, of=len(documents), why=why))
    for column, decision in plan.decisions.items():
        name = f"signatures of {step_name(decision)}"
        if not count or certain.get(column):
            continue
        if column in certain:
            reason, number = "where the text is not what it was", None
        elif column not in facts.flow.get("signatures", {}):
            reason, number = "the step is new", count
        else:
            reason, number = _signature_reason(facts, column), count
        found.append(Work(name=name, count=number, of=len(documents), why=(reason,)))
    return tuple(found)


def _signature_reason(facts: _Facts, column: str) -> str:
    before, now = facts.flow["signatures"][column], facts.plan.signature_keys[column]
    if before["step"] != now["step"]:
        return "its settings or its code changed"
    return "a step before it changed"


def _making(facts: _Facts) -> tuple[Work, ...]:
    """Decisions, chunks, vectors, tokens and the index."""
    plan, flow = facts.plan, facts.flow
    described, kept = plan.describe(), facts.num_rows("documents")
    reasons = []
    if not flow:
        reasons.append("there is no run yet")
    elif not facts.same_chain:
        reasons.append("the steps changed")
    elif flow.get("decisions") != described["decisions"]:
        reasons.append("thresholds changed")
    if len(facts.gone) and flow:
        reasons.append("the source changed")
    if flow.get("unfinished"):
        reasons.append("the last run was interrupted")
    decide = tuple(reasons)
    count = kept if decide else 0
    found = [Work(name="documents to decide on", count=count, of=kept, why=decide)]
    if plan.chunk is not None:
        chunks = facts.num_rows("chunks") + facts.num_rows("spare")
        found += _chunk_work(facts, described, decide, chunks)
    if plan.tokenize is not None:
        again = bool(flow) and flow.get("tokens") != described["tokens"]
        why = ("its settings or its tokenizer changed",) if again else tuple(decide)
        found.append(
            Work(name="documents to tokenize", count=kept if again else None, of=kept, why=why)
        )
    return tuple(found)


def _chunk_work(
    facts: _Facts, described: dict[str, Any], decide: tuple[str, ...], chunks: int
) -> list[Work]:
    flow, plan = facts.flow, facts.plan
    kept = facts.num_rows("documents")
    some = ("of documents that are new, or whose final text or metadata changed",) if decide else ()
    recut = bool(flow) and flow.get("cut") != described["cut"]
    why = ("how chunks are cut changed; vectors of equal texts are known",) if recut else some
    found = [Work(name="documents to cut", count=kept if recut else None, of=kept, why=why)]
    if plan.embed is not None:
        again = bool(flow) and flow.get("embed") != described["embed"]
        new = ("of chunks whose text has no vector yet",) if why else ()
        model = (f"the model is {plan.embed.model}, {plan.embed.precision}",)
        found.append(
            Work(name="chunks to embed", count=chunks if again else None, of=chunks,
                 why=model if again else new)
        )  # fmt: skip
    afresh = bool(flow) and flow.get("index") != described["index"]
    index_why = ("built afresh: its settings changed",) if afresh else some
    found.append(
        Work(name="chunks to index", count=chunks if afresh else None, of=chunks,
             why=index_why or why)
    )  # fmt: skip
    return found


def _step_changes(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> tuple[StepChange, ...]:
    """How the steps differ, those of one name taken in their order."""
    old, new = _numbered(before), _numbered(now)
    if not before:
        return ()
    found = [
        StepChange(step=name, change="removed", settings={})
        for (name, number) in old
        if (name, number) not in new
    ]
    for key, step in new.items():
        was = old.get(key)
        if was is None:
            found.append(StepChange(step=key[0], change="added", settings={}))
        else:
            changed = _setting_changes(was["settings"], step["settings"])
            if changed:
                found.append(StepChange(step=key[0], change="settings", settings=changed))
            elif was["fingerprint"] != step["fingerprint"]:
                found.append(StepChange(step=key[0], change="code", settings={}))
    both = [key for key in new if key in old]
    if both != [key for key in old if key in new]:
        names = " -> ".join(name for name, _ in new)
        found.append(StepChange(step=names, change="order", settings={}))
    return tuple(found)


def _numbered(steps: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for step in steps:
        number = sum(name == step["name"] for name, _ in found)
        found[step["name"], number] = step
    return found


def _setting_changes(was: str, now: str) -> dict[str, tuple[str | None, str | None]]:
    old, new = _settings(was), _settings(now)
    names = dict.fromkeys([*old, *new])
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def _settings(shown: str) -> dict[str, str]:
    """The settings of a step by name, as its representation shows them."""
    shown = _ADDRESS.sub("", shown)
    try:
        call = ast.parse(shown, mode="eval").body
    except SyntaxError:  # a function shows as <function f>
        return {"": shown}
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return {str(each.arg): ast.unparse(each.value) for each in keywords}


def _step_text(step: StepChange) -> str:
    if step.change == "settings":
        parts = [f"{n} {w} -> {x}".strip() for n, (w, x) in step.settings.items()]
        return f"~ {step.step}: {', '.join(parts)}"
    sign = {"added": "+", "removed": "-"}.get(step.change, "~")
    more = {"code": ": its code, or the files that it reads, changed", "order": " is the order now"}
    return f"{sign} {step.step}{more.get(step.change, '')}"

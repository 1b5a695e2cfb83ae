"""A flow, checked and named: what a run needs to know, and what its results depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.index import IndexSettings
from penstock.protocols import Decision, DocumentStep, Source, VectorDecision
from penstock.records import CHUNKS, DOCUMENTS, HASH
from penstock.steps import Chunk, Embed, Tokenize

# Bumped when decoding, or what a run writes for the same steps, changes.
_REVISION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked flow.

    Attributes:
        source: Where rows come from.
        chain: Document steps and decisions, in order.
        chunk: Cuts the kept documents; None ends the flow with the documents.
        embed: Embeds the chunks; None leaves them to words alone.
        vector_decisions: Decisions by the documents' vectors, in order.
        tokenize: Makes tokens of the kept documents; None makes none.
        index: How the chunks are indexed.
        reader: Fingerprint of the source: a change reads every item again.
        chain_fingerprint: Of all that a document's row depends on.
        decided_by: Of the decisions with their thresholds: a change decides anew.
        cut_fingerprint: Of how documents are cut.
        embedded_by: Of the model; "" without one.
        tokenized_by: Of how tokens are made; "" if they are not.
    """

    source: Source
    chain: tuple[DocumentStep | Decision, ...]
    chunk: Chunk | None
    embed: Embed | None
    vector_decisions: tuple[VectorDecision, ...]
    tokenize: Tokenize | None
    index: IndexSettings
    reader: str
    chain_fingerprint: str
    decided_by: str
    cut_fingerprint: str
    embedded_by: str
    tokenized_by: str

    @property
    def decisions(self) -> dict[str, Decision]:
        """The decisions by the name of their signature's column, in order."""
        found: dict[str, Decision] = {}
        for step in self.chain:
            if isinstance(step, Decision):
                name = f"signature_{step.rule}"
                found[name if name not in found else f"{name}_{len(found)}"] = step
        return found

    @property
    def signature_keys(self) -> dict[str, dict[str, Any]]:
        """By the name of a signature's column, what it depends on besides a document's bytes.

        `key` covers the steps before it that shape text and metadata, and the
        decision; `step` the decision alone; `last` tells that the text it saw
        is the document's final one.
        """
        names = {id(step): name for name, step in self.decisions.items()}
        shaping = [step for step in self.chain if not isinstance(step, Decision)]
        before: list[object] = []
        keys: dict[str, dict[str, Any]] = {}
        for step in self.chain:
            if isinstance(step, Decision):
                keys[names[id(step)]] = {
                    "key": fingerprint([_REVISION, *before, step]),
                    "step": fingerprint([_REVISION, step]),
                    "last": len(before) == len(shaping),
                }
            else:
                before.append(step)
        return keys

    @property
    def shaped_by(self) -> str:
        """Fingerprint of the steps that shape text and metadata."""
        return fingerprint([_REVISION, *(s for s in self.chain if not isinstance(s, Decision))])

    @property
    def documents_schema(self) -> pa.Schema:
        """Columns of the documents table."""
        signatures = [pa.field(name, d.signature_type) for name, d in self.decisions.items()]
        return pa.schema([*DOCUMENTS, *signatures])

    def chunks_schema(self, dim: int | None) -> pa.Schema:
        """Columns of the chunks table; `dim` is the length of an embedding."""
        extra = [
            pa.field("title", pa.string(), nullable=False),
            pa.field("media_type", pa.string(), nullable=False),
            DOCUMENTS.field("metadata"),
            pa.field("cut_key", HASH, nullable=False),
            pa.field("embedded_by", pa.string(), nullable=False),
        ]
        if dim is not None:
            # Half precision: the index scores by the same halves, and vectors are most of a store.
            extra.append(pa.field("embedding", pa.list_(pa.float16(), dim), nullable=False))
        return pa.schema([*CHUNKS, *extra])

    def describe(self) -> dict[str, Any]:
        """The flow as the manifest keeps it."""
        ends = (self.chunk, self.embed, *self.vector_decisions, self.tokenize)
        steps = [step for step in (*self.chain, *ends) if step is not None]
        embed = self.embed
        return {
            "source": repr(self.source),
            "steps": [
                {
                    "name": step_name(step),
                    "settings": repr(step),
                    "fingerprint": fingerprint(step),
                    "rule": getattr(step, "rule", None),
                }
                for step in steps
            ],
            "reader": self.reader,
            "chain": self.chain_fingerprint,
            "decisions": self.decided_by,
            "shaped": self.shaped_by,
            "signatures": self.signature_keys,
            "cut": self.cut_fingerprint,
            "embed": None
            if embed is None
            else {
                "model": embed.model,
                "precision": embed.precision,
                "fingerprint": self.embedded_by,
            },
            "index": asdict(self.index),
            "tokens": self.tokenized_by,
        }


def make_plan(source: Source, steps: Sequence[object], index: IndexSettings) -> Plan:
    """Check that these steps make a flow, and name what its results depend on.

    Raises:
        ConfigError: Something is not a step, or stands in the wrong place.
    """
    if not isinstance(source, Source):
        raise ConfigError("Flow.source", source, "must be a source, such as ps.files('docs')")
    rest: list[Any] = list(steps)
    tokenize = _without_tokenize(rest)
    judges: list[Any] = []
    while rest and isinstance(rest[-1], VectorDecision):
        judges.insert(0, rest.pop())
    embed = rest.pop() if rest and isinstance(rest[-1], Embed) else None
    chunk = rest.pop() if rest and isinstance(rest[-1], Chunk) else None
    if embed is not None and chunk is None:
        raise ConfigError("Flow.steps", embed, "needs Chunk() right before it")
    if judges and embed is None:
        raise ConfigError("Flow.steps", judges[0], "needs Chunk() and Embed() before it")
    cutting: object = None
    for step in rest:
        if isinstance(step, (Chunk, Embed, VectorDecision, Tokenize)):
            order = "document steps and decisions, Chunk, Embed, decisions by vectors, Tokenize"
            raise ConfigError("Flow.steps", step, f"must come last and once: {order}")
        if isinstance(step, DocumentStep) and cutting is not None:
            raise ConfigError(
                "Flow.steps",
                cutting,
                f"cuts the text that {step_name(step)} behind it changes; put it behind every "
                "document step",
            )
        if getattr(step, "cut_by", None) is not None:
            cutting = cutting or step
        if not isinstance(step, (DocumentStep, Decision)):
            raise ConfigError(
                "Flow.steps",
                step,
                "must be a step; make one of your own function with ps.Map or ps.Keep",
            )
    return Plan(
        source=source,
        chain=tuple(rest),
        chunk=chunk,
        embed=embed,
        vector_decisions=tuple(judges),
        tokenize=tokenize,
        index=index,
        reader=fingerprint(source),
        chain_fingerprint=fingerprint([_REVISION, *rest]),
        # A representation shows every setting, also those that no signature depends on.
        decided_by=fingerprint(
            [repr(step) for step in (*rest, *judges) if not isinstance(step, DocumentStep)]
        ),
        cut_fingerprint="" if chunk is None else fingerprint([_REVISION, chunk]),
        embedded_by="" if embed is None else embed.fingerprint(),
        tokenized_by="" if tokenize is None else tokenize.fingerprint(),
    )


def _without_tokenize(steps: list[Any]) -> Tokenize | None:
    """Take `Tokenize` out of the end of a flow, where it may stand on either side of the others."""
    for at in range(len(steps) - 1, -1, -1):
        if isinstance(steps[at], Tokenize):
            return steps.pop(at)  # type: ignore[no-any-return]
        if not isinstance(steps[at], (Chunk, Embed, VectorDecision)):
            break
    return None


def step_name(step: object) -> str:
    """A step's name in failures, counts and progress: its class, and a user's function's name."""
    function = getattr(step, "function", None)
    name = type(step).__name__
    return name if function is None else f"{name}({getattr(function, '__name__', '...')})"

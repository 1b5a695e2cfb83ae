"""Raw files in; a clean corpus, a training stream and a hybrid search index out, kept in step.

import penstock as ps

ps.Flow(source=ps.files("docs")).run("corpus")
for hit in ps.Store.open("corpus").search("how to resume a run"):
    print(hit.score, hit.doc_id, hit.text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from penstock.build.report import RunReport
    from penstock.decisions import (
        C4Quality,
        CodeQuality,
        Decontaminate,
        EvalSet,
        ExactDedup,
        FineWebQuality,
        GopherQuality,
        GopherRepetition,
        Language,
        Limit,
        LineDedup,
        MinHashDedup,
        Mix,
        ParagraphDedup,
        Sample,
        SemanticDedup,
        SubstringDedup,
        UrlFilter,
    )
    from penstock.errors import PenstockError, RowError
    from penstock.flow import Flow
    from penstock.index import IndexSettings
    from penstock.loader import ArraySamples, Loader, Mixture, Part, open_shards
    from penstock.models.cross_encoder import CrossEncoder
    from penstock.sources import files, jsonl, parquet
    from penstock.steps import C4Lines, Chunk, Embed, Keep, Map, Normalize, RedactPII, Tokenize
    from penstock.store import Hit, Hits, Store

# Where each public name lives. They load when first used, so that a command
# which needs none of them answers at once.
_HOMES = {
    "ArraySamples": "penstock.loader",
    "C4Lines": "penstock.steps",
    "C4Quality": "penstock.decisions",
    "Chunk": "penstock.steps",
    "CodeQuality": "penstock.decisions",
    "CrossEncoder": "penstock.models.cross_encoder",
    "Decontaminate": "penstock.decisions",
    "Embed": "penstock.steps",
    "EvalSet": "penstock.decisions",
    "ExactDedup": "penstock.decisions",
    "FineWebQuality": "penstock.decisions",
    "Flow": "penstock.flow",
    "GopherQuality": "penstock.decisions",
    "GopherRepetition": "penstock.decisions",
    "Hit": "penstock.store",
    "Hits": "penstock.store",
    "IndexSettings": "penstock.index",
    "Keep": "penstock.steps",
    "Language": "penstock.decisions",
    "Limit": "penstock.decisions",
    "LineDedup": "penstock.decisions",
    "Loader": "penstock.loader",
    "Map": "penstock.steps",
    "MinHashDedup": "penstock.decisions",
    "Mix": "penstock.decisions",
    "Mixture": "penstock.loader",
    "Normalize": "penstock.steps",
    "ParagraphDedup": "penstock.decisions",
    "Part": "penstock.loader",
    "PenstockError": "penstock.errors",
    "RedactPII": "penstock.steps",
    "RowError": "penstock.errors",
    "RunReport": "penstock.build.report",
    "Sample": "penstock.decisions",
    "SemanticDedup": "penstock.decisions",
    "Store": "penstock.store",
    "SubstringDedup": "penstock.decisions",
    "Tokenize": "penstock.steps",
    "UrlFilter": "penstock.decisions",
    "files": "penstock.sources",
    "jsonl": "penstock.sources",
    "open_shards": "penstock.loader",
    "parquet": "penstock.sources",
}

__all__ = [
    "ArraySamples",
    "C4Lines",
    "C4Quality",
    "Chunk",
    "CodeQuality",
    "CrossEncoder",
    "Decontaminate",
    "Embed",
    "EvalSet",
    "ExactDedup",
    "FineWebQuality",
    "Flow",
    "GopherQuality",
    "GopherRepetition",
    "Hit",
    "Hits",
    "IndexSettings",
    "Keep",
    "Language",
    "Limit",
    "LineDedup",
    "Loader",
    "Map",
    "MinHashDedup",
    "Mix",
    "Mixture",
    "Normalize",
    "ParagraphDedup",
    "Part",
    "PenstockError",
    "RedactPII",
    "RowError",
    "RunReport",
    "Sample",
    "SemanticDedup",
    "Store",
    "SubstringDedup",
    "Tokenize",
    "UrlFilter",
    "files",
    "jsonl",
    "open_shards",
    "parquet",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

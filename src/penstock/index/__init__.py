"""The index: vectors and words in immutable segments, searched together.

added chunks --update_index--> segments, IndexManifest
Query, Filter --Index.open, search--> hits by row id --passages--> what they show
"""

from penstock.index.evaluate import (
    Measure,
    Metrics,
    QueryMetrics,
    document_ranking,
    evaluate,
    read_qrels,
    read_queries,
)
from penstock.index.index import Index
from penstock.index.manifest import IndexManifest, SegmentManifest
from penstock.index.query import Filter, Fusion, Hit, Mode, Plan, Query, Sides
from penstock.index.settings import IndexSettings
from penstock.index.tune import Setting, Tuned, tune
from penstock.index.update import update_index

__all__ = [
    "Filter",
    "Fusion",
    "Hit",
    "Index",
    "IndexManifest",
    "IndexSettings",
    "Measure",
    "Metrics",
    "Mode",
    "Plan",
    "Query",
    "QueryMetrics",
    "SegmentManifest",
    "Setting",
    "Sides",
    "Tuned",
    "document_ranking",
    "evaluate",
    "read_qrels",
    "read_queries",
    "tune",
    "update_index",
]

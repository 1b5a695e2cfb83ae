"""The index: vectors and words in immutable files, searched together.

added chunks --update_index--> segments of vectors, one index of words, IndexManifest
query, where --Index.open, search--> hits by row id
"""

from penstock.index.evaluate import (
    Metrics,
    QueryMetrics,
    document_ranking,
    evaluate,
    read_qrels,
    read_queries,
)
from penstock.index.index import Hit, Index
from penstock.index.manifest import IndexManifest, SegmentManifest
from penstock.index.metadata import metadata_columns
from penstock.index.update import update_index
from penstock.index.where import parse_where, where_columns
from penstock.index.words import deleted_share

__all__ = [
    "Hit",
    "Index",
    "IndexManifest",
    "Metrics",
    "QueryMetrics",
    "SegmentManifest",
    "deleted_share",
    "document_ranking",
    "evaluate",
    "metadata_columns",
    "parse_where",
    "read_qrels",
    "read_queries",
    "update_index",
    "where_columns",
]

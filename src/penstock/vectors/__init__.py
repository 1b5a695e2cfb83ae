"""One segment's vectors on disk: written as a stream, searched by place under a bool mask.

    VectorWriter --vectors.npy--> build_search --lists or graph--> Vectors.open --> search

A row's place is its position in the segment; which row ids these are, and
which are deleted, is kept elsewhere. A score is a function of the query and
the row's float16 vector alone, the same bits however the row was found.
"""

from penstock.vectors.files import VectorWriter
from penstock.vectors.plan import Found, SegmentPlan
from penstock.vectors.segment import Vectors, build_search, measure_recall
from penstock.vectors.settings import VectorSettings

__all__ = [
    "Found",
    "SegmentPlan",
    "VectorSettings",
    "VectorWriter",
    "Vectors",
    "build_search",
    "measure_recall",
]

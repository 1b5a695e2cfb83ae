"""What a user may choose about the index of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.vectors import VectorSettings
from penstock.words import WordsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """How a store's chunks are indexed; a change of it builds the index anew from the store."""

    language: str = "english"
    """Whose stems and stop words count: a Snowball language such as ``german``, or ``none``."""
    vectors: Literal["auto", "flat", "ivf", "hnsw"] = "auto"
    """``flat`` scores every vector and is exact; ``ivf`` reads only the lists of vectors near the
    query; ``hnsw`` walks a graph, is slow to build and suits stores that seldom change. ``auto``
    takes ``flat`` for small segments and ``ivf`` for large ones."""
    codes: Literal["auto", "sq8", "rabitq"] = "auto"
    """What ``ivf`` looks at first: ``sq8``, a byte per dimension, or ``rabitq``, a bit; ``auto``
    takes bits but for narrow vectors. The best are scored again from the vectors themselves."""

    def __post_init__(self) -> None:
        self.words_settings()
        self.vector_settings()

    def words_settings(self) -> WordsSettings:
        """The part that the words' side needs."""
        return WordsSettings(language=self.language)

    def vector_settings(self) -> VectorSettings:
        """The part that the vectors' side needs."""
        return VectorSettings(kind=self.vectors, codes=self.codes)

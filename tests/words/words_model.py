"""BM25 said plainly: every row scored by itself, from its own words and the counts of all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from penstock.words import WordsSettings

Row = tuple[list[str], list[str], list[str]]  # words of title, heading and text


def scores(rows: Sequence[Row], terms: Counter[str], settings: WordsSettings) -> np.ndarray:
    """Score of each row for terms that are words of one part each."""
    counts = [Counter(title + title + heading + text) for title, heading, text in rows]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / len(rows) if sum(lengths) else 1.0
    total = np.zeros(len(rows))
    for term, weight in terms.items():
        num_rows = sum(1 for count in counts if count[term])
        rarity = math.log(1 + (len(rows) - num_rows + 0.5) / (num_rows + 0.5))
        for i, count in enumerate(counts):
            norm = settings.k1 * (1 - settings.b + settings.b * lengths[i] / mean)
            if count[term]:
                gain = count[term] * (settings.k1 + 1) / (count[term] + norm)
                total[i] += weight * rarity * gain
    return total

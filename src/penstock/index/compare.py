"""Say whether one ranking is better than another on the same queries, or only luckier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import QueryError
from penstock.index.evaluate import MEASURES, Measure, Metrics

F64 = npt.NDArray[np.float64]

SAMPLES = 10_000
"""How often queries are drawn again."""
_CHUNK = 1 << 21  # numbers drawn at a time: bounds memory, not results


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far one mean lies above another, and how sure that is.

    Attributes:
        mean: Mean over the queries of new minus old.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: How often a difference at least this large, either way, comes
            about when it is chance which of two results of a query is called new.
        better: Queries where new is higher.
        worse: Queries where it is lower.
        equal: Queries where both are the same.
    """

    mean: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    equal: int

    def to_json(self) -> dict[str, Any]:
        """The difference in JSON types."""
        return asdict(self)


def compare(
    new: Metrics, old: Metrics, *, samples: int = SAMPLES, seed: int = 0
) -> dict[Measure, Difference]:
    """Compare two results of the same judged queries, measure by measure.

    Args:
        new: What is tried.
        old: What it is held against.
        samples: How often queries are drawn again.
        seed: Decides the draws.

    Raises:
        QueryError: The results are not of the same queries.
    """
    if list(new.per_query) != list(old.per_query):
        raise QueryError("compare", "expected two results of the same judged queries")
    return {
        measure: paired_difference(
            np.array(new.values(measure)) - np.array(old.values(measure)),
            samples=samples,
            seed=seed,
        )
        for measure in MEASURES
    }


def paired_difference(differences: F64, *, samples: int = SAMPLES, seed: int = 0) -> Difference:
    """Bootstrap interval and randomisation test of a mean of paired differences.

    The interval holds the middle 95 % of the means of queries drawn again with
    replacement. The p value flips the sign of each query's difference at random;
    unlike one read from the bootstrap it stays honest with few queries: three
    wins of three give 0.25.

    Args:
        differences: (num_queries,) float64, new minus old.
        samples: How often queries are drawn again, and signs are flipped.
        seed: Decides the draws.

    Guarantees: the same arguments give the same result.

    Cost: 0.1 s for 500 queries and 10,000 samples; 50 MB whatever the number.

    Source: Smucker, Allan, Carterette, A Comparison of Statistical Significance Tests for
        Information Retrieval Evaluation, CIKM 2007.
    """
    values = np.asarray(differences, np.float64)
    num_queries = len(values)
    if num_queries == 0:
        return Difference(mean=0.0, low=0.0, high=0.0, p_value=1.0, better=0, worse=0, equal=0)
    draw = np.random.default_rng(seed)
    mean = float(values.mean())
    means = np.empty(samples)
    for part in _chunks(samples, num_queries):
        drawn = draw.integers(0, num_queries, (part.stop - part.start, num_queries), np.int32)
        means[part] = values[drawn].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    extreme = 0
    for part in _chunks(samples, num_queries):
        flipped = draw.integers(0, 2, (part.stop - part.start, num_queries), np.int8) == 1
        total = np.where(flipped, -values, values).mean(axis=1)
        # As far as rounding allows: what adds up in another order is no smaller.
        extreme += int((np.abs(total) >= abs(mean) - 1e-12).sum())
    return Difference(
        mean=mean,
        low=float(low),
        high=float(high),
        p_value=(extreme + 1) / (samples + 1),
        better=int((values > 0).sum()),
        worse=int((values < 0).sum()),
        equal=int((values == 0).sum()),
    )


def _chunks(samples: int, num_queries: int) -> Iterator[slice]:
    step = max(1, _CHUNK // num_queries)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))

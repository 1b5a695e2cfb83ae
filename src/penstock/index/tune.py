"""Choose how to search a store from judged queries, and say what that gains.

Both sides' scores of a query's candidates are fetched once; every setting then
orders them in memory. To choose and to measure on the same queries would flatter
the choice, so queries are dealt into folds: each fold is measured with the
setting that is best on all others. Only a gain that shows there is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigError, QueryError
from penstock.index import fusion as fuse
from penstock.index.compare import Difference, paired_difference
from penstock.index.evaluate import MEASURES, Measure, evaluate

if TYPE_CHECKING:
    from penstock.index.query import Sides

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A way to search.

    Attributes:
        mode: Which sides count.
        fusion: How mode "hybrid" joins them; "weighted" elsewhere, where it does not count.
        alpha: Weight of the vector side in "weighted"; None for one per query,
            `fusion.adaptive_alpha`. 0.5 where it does not count.
    """

    mode: Literal["hybrid", "vector", "words"] = "hybrid"
    fusion: Literal["weighted", "rrf"] = "weighted"
    alpha: float | None = 0.5

    def __str__(self) -> str:
        if self.mode != "hybrid":
            return self.mode
        if self.fusion == "rrf":
            return "hybrid rrf"
        return f"hybrid weighted {'per query' if self.alpha is None else format(self.alpha, 'g')}"


_BETWEEN = (
    Setting(mode="words"),
    *(Setting(alpha=round(step / 20, 2)) for step in range(1, 20)),
    Setting(mode="vector"),
)
"""From one side alone to the other: neighbours search much alike."""

SETTINGS = (*_BETWEEN, Setting(alpha=None), Setting(fusion="rrf"))
"""What `tune` chooses from: one side alone, every 0.05 of alpha, one per query, rank fusion."""

_DEALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What `tune` chose, and why.

    Attributes:
        setting: How to search from now on.
        improved: Whether that is `best`; else the gain did not hold, and it is `default`.
        measure: What was measured.
        num_queries: Queries with a relevant document.
        default: What the rest is held against.
        default_score: Mean of the measure under it.
        best: The best setting on all queries.
        best_score: Its mean. It was chosen for being high, so expect less.
        held_out_score: Mean where each query is searched with the setting that
            is best on the folds without it: what to expect on other queries.
        gain: `held_out_score` less `default_score`, with its interval.
        folds: How many parts were held out in turn.
        chosen: How often each setting was best on the other folds: the more often
            one, the surer the choice.
        scores: Mean of every setting over all queries.
        seed: Decided the folds.
    """

    setting: Setting
    improved: bool
    measure: Measure
    num_queries: int
    default: Setting
    default_score: float
    best: Setting
    best_score: float
    held_out_score: float
    gain: Difference
    folds: int
    chosen: Mapping[str, int]
    scores: Mapping[str, float] = field(repr=False)
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The outcome in JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        read = dict(values)
        for name in ("setting", "default", "best"):
            read[name] = Setting(**read[name])
        read["gain"] = Difference(**read["gain"])
        return cls(**read)


def tune(
    sides: Callable[[str], Sides],
    doc_ids: Callable[[U64], Sequence[str]],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    num_rows: int,
    default: Setting = Setting(),
    measure: Measure = "ndcg@10",
    folds: int = 10,
    seed: int = 0,
) -> Tuned:
    """Choose mode, fusion and alpha by cross-validation, the folds dealt ten times.

    A setting is judged together with its two neighbours on the grid of alpha: that
    evens out luck, and raised what was held out on six of eight collections. The
    choice must earn its place: unless the 95 % interval of the held-out gain lies
    above 0, the default stays. A hit counts for its document.

    Args:
        sides: Both sides' scores of the candidates for a query's text.
        doc_ids: The documents of these rows, in their order.
        queries: Query to its text; those without a relevant document are left out.
        qrels: Query to the relevance of its judged documents; relevant is 1 or more.
        num_rows: Rows in the index.
        default: What is kept unless another setting is better.
        measure: What is to be high.
        folds: How many times a part of the queries is held out; cut to their number.
        seed: Decides which queries are held out together.

    Raises:
        QueryError: Fewer than two queries have a text and a relevant document.
        ConfigError: There is no such measure, or fewer than two folds.

    Guarantees: the same arguments give the same outcome.

    Cost: `sides` once a query, and about 2 ms a query to order and measure.
    """
    if measure not in MEASURES:
        raise ConfigError("measure", measure, f"must be one of {', '.join(MEASURES)}")
    if folds < 2:
        raise ConfigError("folds", folds, "must be at least 2")
    judged = [
        query
        for query, judgements in qrels.items()
        if query in queries and any(relevance > 0 for relevance in judgements.values())
    ]
    if len(judged) < 2:
        raise QueryError(
            "tune",
            f"expected at least 2 queries with a relevant document, better 50; found {len(judged)}",
        )
    settings = (*SETTINGS, *(() if default in SETTINGS else (default,)))
    scores = np.empty((len(settings), len(judged)))
    for i, query in enumerate(judged):
        candidates = sides(queries[query])
        documents = np.array(doc_ids(candidates.row_ids), object)
        for j, setting in enumerate(settings):
            ranking = documents[order(candidates, setting, num_rows)].tolist()
            scores[j, i] = evaluate({query: ranking}, {query: qrels[query]}).values(measure)[0]
    return _choose(settings, scores, default, measure, min(folds, len(judged)), seed)


def order(sides: Sides, setting: Setting, num_rows: int) -> I64:
    """Places of the candidates as a search with this setting lists them, best first."""
    if setting.mode != "hybrid":
        by_words = setting.mode == "words"
        found = np.flatnonzero(sides.in_words if by_words else sides.in_vector)
        alone = (sides.words if by_words else sides.vector)[found]
        return found[fuse.best(alone, sides.keys[found])]
    if setting.fusion == "rrf":
        vector = np.where(sides.in_vector, sides.vector, np.nan)
        words = np.where(sides.in_words, sides.words, np.nan)
        return fuse.best(fuse.rrf(vector, words, sides.keys), sides.keys)
    alpha = setting.alpha
    if alpha is None:
        alpha = fuse.adaptive_alpha(sides.words, num_rows)
    return fuse.best(fuse.weighted(sides.vector, sides.words, alpha), sides.keys)


def _choose(
    settings: Sequence[Setting],
    scores: F64,
    default: Setting,
    measure: Measure,
    folds: int,
    seed: int,
) -> Tuned:
    """Decide from each setting's score on each query, (num_settings, num_queries)."""
    num_queries = scores.shape[1]
    kept = settings.index(default)
    draw = np.random.default_rng(seed)
    gained = np.zeros(num_queries)
    chosen: Counter[str] = Counter()
    # One deal would leave it to its luck whether a small gain counts.
    for _ in range(_DEALS):
        for fold in np.array_split(draw.permutation(num_queries), folds):
            best = _best(np.delete(scores, fold, axis=1), kept)
            gained[fold] += scores[best, fold] - scores[kept, fold]
            chosen[str(settings[best])] += 1
    gain = paired_difference(gained / _DEALS, seed=seed)
    best = _best(scores, kept)
    improved = best != kept and gain.low > 0
    means = scores.mean(axis=1).tolist()
    return Tuned(
        setting=settings[best if improved else kept],
        improved=improved,
        measure=measure,
        num_queries=num_queries,
        default=default,
        default_score=means[kept],
        best=settings[best],
        best_score=means[best],
        held_out_score=means[kept] + gain.mean,
        gain=gain,
        folds=folds,
        chosen=dict(chosen.most_common()),
        scores={str(setting): mean for setting, mean in zip(settings, means, strict=True)},
        seed=seed,
    )


def _best(scores: F64, kept: int) -> int:
    """The setting with the highest mean, evened out; of those as good, the default or the first."""
    levels = scores.mean(axis=1)
    curve = np.pad(levels[: len(_BETWEEN)], 1, mode="edge")
    levels[: len(_BETWEEN)] = (curve[:-2] + curve[1:-1] + curve[2:]) / 3
    # Means of the same numbers added in another order differ in the last bits.
    if levels[kept] >= levels.max() - 1e-9:
        return kept
    return int(np.flatnonzero(levels >= levels.max() - 1e-9)[0])

"""`KMeans`: clusters around means, with the interface of scikit-learn's estimator of that name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from penstock.cluster._checks import (
    DataError,
    feature_names,
    not_fitted,
    points_of,
    weights_of,
)
from penstock.cluster._lloyd import (
    Fitted,
    batches,
    lloyd,
    move_towards,
    nearest_labels,
    random_start,
    spread_start,
)
from penstock.cluster._passes import F64, I32, Centres, Points, distances, inertia_of, prepare
from penstock.cores import num_cores
from penstock.errors import ConfigError

_BATCHES_AT_MOST = 1 << 20


class KMeans:
    """Find `n_clusters` means so that points are near the nearest of them.

    Parameters, attributes and what they mean are scikit-learn's, and so are
    labels and inertia: the same start gives the same clusters, up to rounding.
    It is no class of scikit-learn's and does not need it, but works in its pipelines.

    With many centres of many components, most distances are never computed:
    bounds of how near a group of centres can be show that they cannot matter.
    Nothing else changes by that: the labels are those of comparing all.

    Guarantees: for one `random_state`, the same result in any number of threads.
    Cost: ``n * n_clusters * dim`` multiplications a round at most, and besides the points
        memory of an eighth of them; no matrix of distances.

    Source: Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++); Ding et al. 2015
        (Yinyang bounds); Sculley 2010 (mini-batches). Differs: an empty cluster takes
        the farthest point, of several the first; `batch_size` replaces a class of its own.

    Attributes:
        cluster_centers_: (n_clusters, dim), of the points' type.
        labels_: (n,) int32, of the points of `fit`.
        inertia_: Weighted sum of the squared distances of the points to their centres.
        n_iter_: Rounds of the best start.
        n_features_in_: dim.
        feature_names_in_: The columns' names, where `fit` saw a data frame.
    """

    _estimator_type = "clusterer"

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        batch_size: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        """Keep the settings; `fit` checks them.

        Args:
            n_clusters: How many clusters.
            init: ``k-means++``, ``random``, an array (n_clusters, dim) of centres, or a function
                of (X, n_clusters, random_state) that gives one.
            n_init: Starts, of which the best is kept; ``auto`` is 10 for ``random`` and
                functions, else 1.
            max_iter: Rounds at most; with `batch_size`, passes over as many points as there are.
            tol: Centres that move by less end it, in units of the points' mean variance.
            random_state: Seed, `numpy.random.RandomState` or None.
            batch_size: Points of a batch; None: every round sees all points.
            n_jobs: Threads; None: one for each core.
        """
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.batch_size = batch_size
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Find the clusters.

        Args:
            X: (n, dim); float32 and float64 are taken as they are, all else as float64.
            y: Not used.
            sample_weight: (n,) how much each point counts.

        Raises:
            ConfigError: A setting is wrong.
            DataError: X is; both a `ConfigError` and a `ValueError`.
        """
        self._check_settings()
        values = points_of(X, type(self).__name__)
        if len(values) < self.n_clusters:
            problem = f"n_samples={len(values)} should be >= n_clusters={self.n_clusters}"
            raise DataError(f"{type(self).__name__}.n_clusters", self.n_clusters, problem)
        weights = weights_of(sample_weight, len(values), type(self).__name__)
        self._note_features(X, values.shape[1])
        points = prepare(values, weights, self._num_threads())
        random = _random(self.random_state)
        best: Fitted | None = None
        for _ in range(self._num_starts()):
            start = self._start(points, random)
            found = self._run(points, start, random)
            if best is None or found.inertia < best.inertia * (1 - 1e-6):
                best = found
        assert best is not None
        self._keep(best.centres + points.mean, values.dtype)
        self.labels_ = best.labels
        self._seen = np.bincount(
            best.labels, weights if len(weights) else None, minlength=self.n_clusters
        ).astype(np.float64)
        self.n_steps_ = 0
        self.inertia_ = best.inertia
        self.n_iter_ = best.num_iterations
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Move the centres towards one more batch; the first call starts them from it.

        Raises:
            ConfigError: A setting is wrong.
            DataError: X is, or the first batch has fewer points than clusters.
        """
        self._check_settings()
        first = not hasattr(self, "cluster_centers_")
        values = self._new_points(X) if not first else points_of(X, type(self).__name__)
        if first and len(values) < self.n_clusters:
            problem = f"n_samples={len(values)} should be >= n_clusters={self.n_clusters}"
            raise DataError(f"{type(self).__name__}.n_clusters", self.n_clusters, problem)
        weights = weights_of(sample_weight, len(values), type(self).__name__)
        points = prepare(values, weights, self._num_threads())
        if first:
            self._note_features(X, values.shape[1])
            centres = self._start(points, _random(self.random_state))
            self._seen, self.n_steps_ = np.zeros(self.n_clusters), 0
        else:
            centres = self.cluster_centers_.astype(np.float64) - points.mean
        move_towards(points, centres, self._seen)
        self._keep(centres + points.mean, values.dtype)
        self.labels_ = nearest_labels(values, weights, self._centres(values), points.num_threads)[0]
        self.inertia_ = inertia_of(points, self.labels_, centres)
        self.n_steps_ += 1
        self.n_iter_ = 1
        return self

    def predict(self, X: Any) -> I32:  # noqa: N803
        """The nearest centre of each point, (n,) int32; of several as near, the first."""
        values = self._new_points(X)
        return nearest_labels(values, np.empty(0), self._centres(values), self._num_threads())[0]

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> I32:  # noqa: N803
        """The labels of `fit`, (n,) int32."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def transform(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Distance of each point to each centre, (n, n_clusters) of the points' type."""
        values = self._new_points(X)
        _, _, points, centres = nearest_labels(
            values, np.empty(0), self._centres(values), self._num_threads()
        )
        out = np.empty((len(values), len(centres)), values.dtype)
        distances(points, Centres.of(centres, values.dtype), out)
        return np.sqrt(out, out=out)

    def fit_transform(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        sample_weight: Any = None,
    ) -> npt.NDArray[Any]:
        """`fit`, then `transform` of the same points."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Minus the inertia of these points."""
        values = self._new_points(X)
        weights = weights_of(sample_weight, len(values), type(self).__name__)
        labels, _, points, centres = nearest_labels(
            values, weights, self._centres(values), self._num_threads()
        )
        return -inertia_of(points, labels, centres)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name."""
        return {name: getattr(self, name) for name in _names(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Change settings.

        Raises:
            DataError: There is no such setting.
        """
        known = _names(type(self))
        for name, value in params.items():
            if name not in known:
                problem = f"is no setting; there are {', '.join(known)}"
                raise DataError(f"{type(self).__name__}.{name}", value, problem)
            setattr(self, name, value)
        return self

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Names of the columns of `transform`."""
        self._check_fitted()
        name = type(self).__name__.lower()
        return np.asarray([f"{name}{i}" for i in range(len(self.cluster_centers_))], object)

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if isinstance(value, np.ndarray) or value is not defaults[name].default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cluster_centers_")

    def __sklearn_tags__(self) -> Any:
        # Called by scikit-learn alone, so it is there.
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="clusterer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float64", "float32"]),
            input_tags=InputTags(sparse=False),
        )

    def _check_settings(self) -> None:
        name = type(self).__name__
        for setting, optional in (
            ("n_clusters", False),
            ("max_iter", False),
            ("batch_size", True),
            ("n_jobs", True),
        ):
            value = getattr(self, setting)
            if not (optional and value is None) and not _is_count(value):
                raise ConfigError(
                    f"{name}.{setting}", value, "must be a whole number of at least 1"
                )
        if self.n_init != "auto" and not _is_count(self.n_init):
            problem = "must be a whole number of at least 1, or 'auto'"
            raise ConfigError(f"{name}.n_init", self.n_init, problem)
        if isinstance(self.tol, bool) or not np.isfinite(self.tol) or self.tol < 0:
            raise ConfigError(f"{name}.tol", self.tol, "must be a finite number of at least 0")
        if isinstance(self.init, str) and self.init not in ("k-means++", "random"):
            problem = "must be 'k-means++', 'random', an array of centres or a function"
            raise ConfigError(f"{name}.init", self.init, problem)

    def _num_threads(self) -> int:
        return num_cores() if self.n_jobs is None else int(self.n_jobs)

    def _num_starts(self) -> int:
        if not (isinstance(self.init, str) or callable(self.init)):
            return 1  # given centres are always the same start
        if isinstance(self.n_init, str):
            return 1 if isinstance(self.init, str) and self.init == "k-means++" else 10
        return int(self.n_init)

    def _start(self, points: Points, random: np.random.RandomState) -> F64:
        """(n_clusters, dim) less the points' mean."""
        if isinstance(self.init, str):
            starts: dict[str, Callable[..., F64]] = {
                "k-means++": spread_start,
                "random": random_start,
            }
            return starts[self.init](points, self.n_clusters, random)
        given = self.init
        if callable(given):
            given = given(points.values, self.n_clusters, random_state=random)
        centres = points_of(given, f"{type(self).__name__}.init").astype(np.float64)
        shape = (self.n_clusters, points.values.shape[1])
        if centres.shape != shape:
            problem = f"must be centres of shape {shape}: (n_clusters, dim)"
            raise DataError(f"{type(self).__name__}.init", centres.shape, problem)
        shifted: F64 = centres - points.mean
        return shifted

    def _run(self, points: Points, start: F64, random: np.random.RandomState) -> Fitted:
        if self.batch_size is None:
            return lloyd(points, start, self.max_iter, self.tol * points.variance)
        num = len(points.values)
        size = min(self.batch_size, num)
        passes = min(self.max_iter, 10)
        num_batches = min(max(1, passes * num // size), _BATCHES_AT_MOST)
        centres = batches(
            points,
            start,
            np.zeros(self.n_clusters),
            batch_size=size,
            num_batches=num_batches,
            random=random,
        )
        labels = nearest_labels(
            points.values, points.weights, centres + points.mean, points.num_threads
        )[0]
        inertia = inertia_of(points, labels, centres)
        return Fitted(centres=centres, labels=labels, inertia=inertia, num_iterations=passes)

    def _keep(self, centres: F64, dtype: Any) -> None:
        self.cluster_centers_: npt.NDArray[Any] = centres.astype(dtype)

    def _centres(self, values: npt.NDArray[Any]) -> F64:
        return np.asarray(self.cluster_centers_, np.float64)

    def _check_fitted(self) -> None:
        if not hasattr(self, "cluster_centers_"):
            raise not_fitted(type(self).__name__)

    def _new_points(self, data: Any) -> npt.NDArray[Any]:
        """Points for centres that are there."""
        self._check_fitted()
        self._check_names(data)
        name = type(self).__name__
        values = points_of(data, name)
        dim = self.cluster_centers_.shape[1]
        if values.shape[1] != dim:
            problem = (
                f"X has {values.shape[1]} features, but {name} is expecting {dim} features as input"
            )
            raise DataError(f"{name}: X", f"an array of shape {values.shape}", problem)
        return values

    def _note_features(self, data: Any, dim: int) -> None:
        self.n_features_in_ = dim
        names = feature_names(data)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_names(self, data: Any) -> None:
        names, known = feature_names(data), getattr(self, "feature_names_in_", None)
        if names is not None and known is not None and list(names) != list(known):
            problem = (
                "The feature names should match those that were passed during fit, "
                f"which are {list(known)}"
            )
            raise DataError(f"{type(self).__name__}: X", list(names), problem)


def _names(kind: type) -> list[str]:
    """Names of the settings."""
    return sorted(name for name in inspect.signature(kind).parameters)


def _is_count(value: object) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and int(value) >= 1  # type: ignore[call-overload]


def _random(seed: Any) -> np.random.RandomState:
    """What draws; the same as scikit-learn's for the same seed."""
    if isinstance(seed, np.random.RandomState):
        return seed
    if seed is None:
        return np.random.RandomState()
    if isinstance(seed, (int, np.integer)) and 0 <= seed < 1 << 32:
        return np.random.RandomState(int(seed))
    raise ConfigError("KMeans.random_state", seed, "must be from 0 to 2**32 - 1, or a RandomState")

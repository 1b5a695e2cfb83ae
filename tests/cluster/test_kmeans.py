"""`KMeans` against scikit-learn, against plain NumPy, and at the edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.cluster import KMeans
from penstock.errors import ConfigError


def blobs(num: int, dim: int, k: int, seed: int = 0, dtype: Any = np.float64) -> npt.NDArray[Any]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(k, dim)) * 3
    return (centres[random.integers(0, k, num)] + random.normal(size=(num, dim))).astype(dtype)


def squares(points: npt.NDArray[Any], centres: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Squared distance of each point to each centre, by differences."""
    return np.stack([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


def twin(points: npt.NDArray[Any], start: npt.NDArray[Any], rounds: int) -> tuple[Any, float]:
    """Lloyd's iterations by all differences; an empty cluster takes the farthest point."""
    centres = start.astype(np.float64)
    exact = points.astype(np.float64)
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        far = squares(exact, centres)
        before, labels = labels, far.argmin(axis=1)
        if (before == labels).all():
            break
        members = [np.flatnonzero(labels == c) for c in range(len(centres))]
        farthest = iter(np.argsort(-far.min(axis=1), kind="stable"))
        for c in [c for c in range(len(centres)) if len(members[c]) == 0]:
            point = next(farthest)
            members[labels[point]] = members[labels[point]][members[labels[point]] != point]
            members[c] = np.array([point])
        centres = np.stack([exact[rows].mean(axis=0) for rows in members])
    far = squares(exact, centres)
    return far.argmin(axis=1), float(far.min(axis=1).sum())


CASES = [
    pytest.param(3000, 2, 3, np.float64, id="few-centres"),
    pytest.param(3000, 2, 3, np.float32, id="few-centres-float32"),
    pytest.param(1000, 5, 12, np.float64, id="small"),
    pytest.param(1000, 24, 100, np.float32, id="bounds-float32"),
    pytest.param(1000, 24, 100, np.float64, id="bounds"),
    pytest.param(300, 601, 70, np.float64, id="rows-of-several-lines"),
    pytest.param(1, 3, 1, np.float64, id="one-point"),
    pytest.param(13, 1, 13, np.float32, id="as-many-clusters-as-points"),
]


@pytest.mark.parametrize(("num", "dim", "k", "dtype"), CASES)
def test_labels_and_inertia_are_those_of_comparing_all(
    num: int, dim: int, k: int, dtype: Any
) -> None:
    points = blobs(num, dim, k, dtype=dtype)
    start = points[:k]
    # In float32 a rounded tie sends many rounds another way.
    rounds = 2 if dtype == np.float32 else 300
    labels, inertia = twin(points, start, rounds)

    found = KMeans(k, init=start, tol=0.0, max_iter=rounds).fit(points)

    assert found.inertia_ == pytest.approx(inertia, rel=1e-6, abs=1e-6)
    assert (found.labels_ != labels).mean() <= (0.002 if dtype == np.float32 else 0)
    assert found.cluster_centers_.dtype == dtype
    assert found.labels_.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_change_nothing(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(6000, 40)).astype(dtype)
    bounded, compared = (
        KMeans(150, init="random", n_init=1, tol=0.0, random_state=3) for _ in range(2)
    )
    bounded.fit(points)
    monkeypatch.setattr("penstock.cluster._lloyd._BOUNDS_PAY", 1000)
    compared.fit(points)

    assert bounded.n_iter_ > 5
    assert (bounded.labels_ == compared.labels_).all()
    assert (bounded.cluster_centers_ == compared.cluster_centers_).all()


@pytest.mark.parametrize("batch_size", [None, 500], ids=["full", "mini-batch"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize(("dim", "k"), [(2, 3), (24, 100)], ids=["few", "many"])
def test_threads_change_nothing(init: str, batch_size: int | None, dim: int, k: int) -> None:
    points = blobs(20_000, dim, k, dtype=np.float32)

    one, three = (
        KMeans(
            k, init=init, n_init=1, max_iter=4, random_state=5, batch_size=batch_size, n_jobs=n
        ).fit(points)
        for n in (1, 3)
    )

    assert (one.labels_ == three.labels_).all()
    assert (one.cluster_centers_ == three.cluster_centers_).all()
    assert one.inertia_ == three.inertia_


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_inertia_is_as_good_as_scikit_learn(init: Any) -> None:
    sklearn = pytest.importorskip("sklearn.cluster")
    points = blobs(2000, 8, 20)

    ours = KMeans(20, init=init, n_init=5, random_state=0).fit(points)
    theirs = sklearn.KMeans(20, init=init, n_init=5, random_state=0).fit(points)

    assert ours.inertia_ <= theirs.inertia_ * 1.02
    assert ours.score(points) == pytest.approx(-ours.inertia_)


def test_random_start_is_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.cluster")
    points = blobs(4000, 2, 3)

    ours, theirs = (
        kind(3, init="random", n_init=1, max_iter=100, random_state=7)
        for kind in (KMeans, sklearn.KMeans)
    )

    assert (ours.fit_predict(points) == theirs.fit_predict(points)).all()
    assert ours.inertia_ == pytest.approx(theirs.inertia_)
    assert ours.n_iter_ == theirs.n_iter_


def test_mini_batches_come_near_full_rounds() -> None:
    points = blobs(20_000, 8, 10)

    full = KMeans(10, random_state=0).fit(points)
    batches = KMeans(10, random_state=0, batch_size=1024).fit(points)
    assert batches.inertia_ <= full.inertia_ * 1.1


def test_partial_fit_moves_towards_each_batch() -> None:
    points = blobs(4000, 4, 5)
    model = KMeans(5, random_state=0)
    for part in np.array_split(points, 8):
        model.partial_fit(part)

    assert model.n_steps_ == 8
    assert -model.score(points) <= KMeans(5, random_state=0).fit(points).inertia_ * 1.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transform_gives_distances_and_predict_the_nearest(dtype: Any) -> None:
    points = blobs(500, 6, 9, dtype=dtype)
    model = KMeans(9, random_state=1).fit(points)
    exact = np.sqrt(((points[:, None] - model.cluster_centers_[None]) ** 2).sum(axis=2))

    np.testing.assert_allclose(model.transform(points), exact, atol=1e-4)
    assert (model.predict(points) == exact.argmin(axis=1)).all()


def test_weights_count_as_repeated_points() -> None:
    points = blobs(300, 3, 4)
    times = np.random.default_rng(1).integers(0, 4, 300)
    start = points[times > 0][:4]

    weighted = KMeans(4, init=start).fit(points, sample_weight=times)
    repeated = KMeans(4, init=start).fit(np.repeat(points, times, axis=0))

    assert weighted.inertia_ == pytest.approx(repeated.inertia_)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_)


@pytest.mark.parametrize(("dim", "k"), [(2, 3), (20, 70)], ids=["few", "bounds"])
def test_empty_clusters_take_the_farthest_points(dim: int, k: int) -> None:
    points = blobs(500, dim, 5)
    start = np.repeat(points[:1], k, axis=0)  # all but the first are empty
    start[1:] += 1e6

    model = KMeans(k, init=start).fit(points)

    assert len(np.unique(model.labels_)) == k
    assert np.abs(model.cluster_centers_).max() < 1e3


def test_fewer_distinct_points_than_clusters_end_well() -> None:
    points = np.repeat(np.arange(3.0)[:, None], 10, axis=0)

    model = KMeans(6, random_state=0).fit(points)

    assert model.inertia_ == 0.0
    assert np.isfinite(model.cluster_centers_).all()


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_each_label_is_the_nearest_centre(seed: int, num: int, dim: int, single: bool) -> None:
    points = blobs(num, dim, 3, seed, np.float32 if single else np.float64)
    model = KMeans(min(num, 1 + seed % 20), random_state=seed).fit(points)
    exact = ((points[:, None].astype(float) - model.cluster_centers_[None]) ** 2).sum(axis=2)

    own = exact[np.arange(num), model.labels_]
    assert (own <= exact.min(axis=1) + 1e-4).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_clusters": 0}, "n_clusters"),
        ({"n_clusters": True}, "n_clusters"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1.0}, "tol"),
        ({"tol": float("nan")}, "tol"),
        ({"init": "best"}, "init"),
        ({"init": np.zeros((2, 9))}, "init"),
        ({"n_init": 0}, "n_init"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_jobs": -1}, "n_jobs"),
        ({"random_state": -1}, "random_state"),
        ({"n_clusters": 1000}, "n_samples"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_settings_are_told(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        KMeans(**change).fit(blobs(100, 3, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_points_that_are_not_finite_are_refused(value: float) -> None:
    points = blobs(100, 3, 3)
    points[41, 1] = value

    with pytest.raises(ValueError, match="row 41 contains NaN or infinity"):
        KMeans(3).fit(points)


_EXPLAINED = {
    # k-means++ draws points: it draws others where points are repeated than where they
    # weigh more. scikit-learn's own KMeans is exempt for the same reason. With a given
    # start both are the same: `test_weights_count_as_repeated_points`.
    "check_sample_weight_equivalence_on_dense_data": "the start is drawn",
}


def test_scikit_learn_accepts_it_as_an_estimator() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of skipped checks, and that it inherits nothing
        results = checks.check_estimator(KMeans(), on_fail=None, expected_failed_checks=_EXPLAINED)

    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) >= 45


def test_the_library_is_not_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; sys.modules['sklearn'] = None\n"
        "from penstock.cluster import KMeans\n"
        "print(KMeans(2, random_state=0).fit_predict(np.eye(4)).max())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1"

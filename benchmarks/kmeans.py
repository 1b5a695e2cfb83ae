"""Time k-means against scikit-learn and Faiss: same points, same start, same rounds, same inertia.

    python benchmarks/kmeans.py [--vectors vectors.npy] [--rounds 5] [--quick]

Four tasks:

    few     1,000,000 points of `make_blobs`, 2 features, 3 clusters, tol 1e-4, at most 100
            iterations, random start, one start: `fit_predict`. In float64, as `make_blobs` makes
            them, and in float32. Faiss is left out: it has no tolerance and no float64.
    many    200,000 x 384 float32, 1,000 clusters, 25 iterations from the same 1,000 rows, then
            the labels. Real embeddings (--vectors), else points by chance, where bounds
            prune less.
    starts  the points of `few` in float32, 20 clusters, k-means++, one start, tol 1e-4: the whole
            `fit_predict`. Each draws its start by itself, so inertia differs; the mean of 5 seeds
            (--quick: 1) is told.
    batches the points of `many`, k-means++, mini-batches of 4,096, three passes: against
            `MiniBatchKMeans`. Likewise of 5 seeds. Faiss has neither.

All three use all cores. Inertia is computed anew, in float64 by differences, from the centres of
each: labels are those that each gives. The ratio is of the best times.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _machine import print_machine  # type: ignore[import-not-found, unused-ignore]


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")
    print_machine("numpy", "numba", "scikit-learn", "faiss-cpu")
    _few(options)
    _many(options)
    _starts(options)
    _batches(options)


def _few(options: argparse.Namespace) -> None:
    from sklearn.cluster import KMeans as Peer
    from sklearn.datasets import make_blobs

    from penstock.cluster import KMeans

    num = 100_000 if options.quick else 1_000_000
    made, _ = make_blobs(num, n_features=options.features, centers=3, random_state=1)
    for dtype in (np.float64, np.float32):
        points = made.astype(dtype)
        settings: dict[str, Any] = {
            "init": "random",
            "n_init": 1,
            "max_iter": 100,
            "tol": 1e-4,
            "random_state": 0,
        }
        models = {"penstock": KMeans(3, **settings), "scikit-learn": Peer(3, **settings)}
        print(f"\nfew: {num:,} x {options.features} {np.dtype(dtype)}, 3 clusters")
        runs = {name: partial(_fit_predict, model, points) for name, model in models.items()}
        _compare(points, runs, options.rounds)


def _fit_predict(model: Any, points: Any) -> tuple[Any, Any]:
    return model.fit_predict(points), model.cluster_centers_


def _many(options: argparse.Namespace) -> None:
    import faiss
    from sklearn.cluster import KMeans as Peer

    from penstock.cluster import KMeans

    points, k, rounds = _many_points(options)
    start = points[np.random.RandomState(0).choice(len(points), k, replace=False)].copy()

    def ours() -> tuple[Any, Any]:
        model = KMeans(k, init=start, max_iter=rounds, tol=0.0).fit(points)
        return model.labels_, model.cluster_centers_

    def scikit() -> tuple[Any, Any]:
        model = Peer(k, init=start, n_init=1, max_iter=rounds, tol=0.0).fit(points)
        return model.labels_, model.cluster_centers_

    def by_faiss() -> tuple[Any, Any]:
        model = faiss.Kmeans(
            points.shape[1],
            k,
            niter=rounds,
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),
        )
        model.train(points, init_centroids=start)
        return model.index.search(points, 1)[1][:, 0], np.asarray(model.centroids)

    print(f"\nmany: {len(points):,} x {points.shape[1]} float32, {k} clusters, {rounds} iterations")
    contenders = {"penstock": ours, "scikit-learn": scikit, "faiss": by_faiss}
    _compare(points, contenders, max(1, options.rounds // 5))


def _many_points(options: argparse.Namespace) -> tuple[Any, int, int]:
    num, k, rounds = (20_000, 200, 10) if options.quick else (200_000, 1000, 25)
    if options.vectors:
        points = np.ascontiguousarray(np.load(options.vectors, mmap_mode="r")[:num], np.float32)
    else:
        points = np.random.default_rng(0).normal(size=(num, 384)).astype(np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, k, rounds


def _starts(options: argparse.Namespace) -> None:
    from sklearn.cluster import KMeans as Peer
    from sklearn.datasets import make_blobs

    from penstock.cluster import KMeans

    num = 100_000 if options.quick else 1_000_000
    points, _ = make_blobs(num, n_features=options.features, centers=20, random_state=1)
    points = points.astype(np.float32)
    print(f"\nstarts: {num:,} x {options.features} float32, 20 clusters, k-means++")
    settings: dict[str, Any] = {"init": "k-means++", "n_init": 1, "max_iter": 100, "tol": 1e-4}
    _by_seed(
        points,
        {
            "penstock": lambda seed: KMeans(20, random_state=seed, **settings),
            "scikit-learn": lambda seed: Peer(20, random_state=seed, **settings),
        },
        1 if options.quick else 5,
    )


def _batches(options: argparse.Namespace) -> None:
    from sklearn.cluster import MiniBatchKMeans as Peer

    from penstock.cluster import KMeans

    points, k, _ = _many_points(options)
    print(f"\nbatches: {len(points):,} x {points.shape[1]} float32, {k} clusters, 4,096 at a time")
    settings: dict[str, Any] = {"n_init": 1, "max_iter": 3, "tol": 0.0, "batch_size": 4096}
    _by_seed(
        points,
        {
            "penstock": lambda seed: KMeans(k, random_state=seed, **settings),
            "scikit-learn": lambda seed: Peer(
                k, random_state=seed, max_no_improvement=None, reassignment_ratio=0.0, **settings
            ),
        },
        1 if options.quick else 5,
    )


def _by_seed(points: Any, makers: Mapping[str, Callable[[int], Any]], seeds: int) -> None:
    wall: dict[str, list[float]] = {name: [] for name in makers}
    cpu: dict[str, list[float]] = {name: [] for name in makers}
    inertia: dict[str, list[float]] = {name: [] for name in makers}
    makers["penstock"](0).fit_predict(points[:20_000])  # loads compiled kernels
    for seed in range(seeds):
        for name, make in makers.items():
            model = make(seed)
            start, used = time.perf_counter(), time.process_time()
            labels = model.fit_predict(points)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
            inertia[name].append(_inertia(points, labels, model.cluster_centers_))
    own = float(np.median(wall["penstock"]))
    print(f"  {'':<14}{'median s':>9}{'CPU s':>9}{'ratio':>8}{'mean inertia':>18}{'best':>14}")
    for name in makers:
        median = float(np.median(wall[name]))
        print(
            f"  {name:<14}{median:>9.3f}{np.median(cpu[name]):>9.2f}{median / own:>7.2f}x"
            f"{np.mean(inertia[name]):>18.6g}{min(inertia[name]):>14.6g}"
        )


def _compare(points: Any, contenders: Mapping[str, Callable[[], Any]], rounds: int) -> None:
    wall = {name: [] for name in contenders}  # type: dict[str, list[float]]
    cpu = {name: [] for name in contenders}  # type: dict[str, list[float]]
    found: dict[str, Any] = {}
    if rounds > 1:
        contenders["penstock"]()  # loads compiled kernels
    for _ in range(rounds):
        for name, run in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            found[name] = run()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    own, labels = min(wall["penstock"]), found["penstock"][0]
    print(f"  {'':<14}{'best s':>9}{'CPU s':>9}{'ratio':>8}{'inertia':>18}{'same labels':>13}")
    for name in contenders:
        same = float((found[name][0] == labels).mean())
        print(
            f"  {name:<14}{min(wall[name]):>9.3f}{min(cpu[name]):>9.2f}"
            f"{min(wall[name]) / own:>7.2f}x{_inertia(points, *found[name]):>18.6g}{same:>13.4%}"
        )


def _inertia(points: Any, labels: Any, centres: Any) -> float:
    total = 0.0
    for first in range(0, len(points), 1 << 16):
        part = slice(first, first + (1 << 16))
        left = points[part].astype(np.float64) - centres[labels[part]]
        total += float((left**2).sum())
    return total


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, help="a .npy file of (n, 384) float32")
    parser.add_argument("--features", type=int, default=2, help="of the points of `few`")
    parser.add_argument("--rounds", type=int, default=5, help="of `few`; `many` has a fifth")
    parser.add_argument("--quick", action="store_true", help="a tenth of the points")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What near-duplicate removal did and what another threshold would do, from stored signatures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from penstock.decisions._order import Values
from penstock.decisions.near import MinHashDedup, Texts, share_found
from penstock.decisions.near_clusters import (
    Candidates,
    estimate,
    find_candidates,
    most_different,
    num_different,
    similar_clusters,
    similar_pairs,
    take_ids,
)
from penstock.kernels import I64
from penstock.kernels.buffers import Int

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(11))
"""Where the curve is computed unless told otherwise."""

_PAIRS_PER_BAND = 4096
_EXCERPT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSizes:
    """How many clusters have from `least` to `most` documents."""

    least: int
    most: int
    clusters: int
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What a threshold would do.

    Attributes:
        threshold: Least estimated similarity of linked documents.
        dropped: Documents that would go.
        found: Probability that a pair of just this similarity shares a band, so
            that it is looked at: where it is low, other bands would drop more.
    """

    threshold: float
    dropped: int
    found: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPair:
    """Two documents whose similarity is near the threshold.

    Attributes:
        left: The document of the smaller `doc_id`.
        right: The other.
        estimated: Jaccard similarity by the signatures.
        jaccard: By the texts, if those could be read.
        left_excerpt: Where the texts begin to differ, if they could be read.
        right_excerpt: The same place in the other.
    """

    left: str
    right: str
    estimated: float
    jaccard: float | None = None
    left_excerpt: str = ""
    right_excerpt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupReport:
    """What `dedup_report` found.

    Attributes:
        documents: Documents that the decision saw.
        without_words: Those of them that have no signature.
        dropped: Documents dropped as near-duplicates.
        threshold: The threshold in use; None if a shared band is enough.
        bands: Bands in use.
        rows: Hash functions in each.
        sizes: Clusters by size, in powers of two, without documents that stand alone.
        largest: Documents of the largest cluster.
        curve: What other thresholds would drop.
        near: Pairs near the threshold, the nearest first.
    """

    documents: int
    without_words: int
    dropped: int
    threshold: float | None
    bands: int
    rows: int
    sizes: tuple[ClusterSizes, ...]
    largest: int
    curve: tuple[CurvePoint, ...]
    near: tuple[NearPair, ...]

    def to_json(self) -> str:
        """The report as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """The report as text for a terminal."""
        return "\n".join([*self._summary(), *self._sizes(), *self._curve(), *self._pairs()])

    def curve_svg(self, width: int = 640, height: int = 320) -> str:
        """The curve as an SVG drawing: documents dropped over the threshold."""
        points = sorted(self.curve, key=lambda point: point.threshold)
        if not points:
            return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"/>\n'
        low, high = points[0].threshold, points[-1].threshold
        most = max(1, *(point.dropped for point in points))
        left, top, right, bottom = 70.0, 20.0, width - 20.0, height - 40.0

        def x(threshold: float) -> float:
            return left + (right - left) * (threshold - low) / max(high - low, 1e-9)

        def y(dropped: float) -> float:
            return bottom - (bottom - top) * dropped / most

        line = " ".join(f"{x(p.threshold):.1f},{y(p.dropped):.1f}" for p in points)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="#888"/>',
            f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>',
        ]
        for point in points:
            spot = f'cx="{x(point.threshold):.1f}" cy="{y(point.dropped):.1f}"'
            title = f"{point.threshold}: {point.dropped:,} dropped"
            parts.append(f'<circle {spot} r="3" fill="#1f6feb"><title>{title}</title></circle>')
            label = f'x="{x(point.threshold):.1f}" y="{bottom + 16}" text-anchor="middle"'
            parts.append(f"<text {label}>{point.threshold:g}</text>")
        for share in (0.0, 0.5, 1.0):
            label = f'x="{left - 6}" y="{y(share * most) + 4:.1f}" text-anchor="end"'
            parts.append(f"<text {label}>{round(share * most):,}</text>")
        middle = f'x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle"'
        parts.append(f"<text {middle}>least estimated similarity of linked documents</text>")
        if self.threshold is not None and low <= self.threshold <= high:
            at = f"{x(self.threshold):.1f}"
            parts.append(
                f'<path d="M{at},{top}V{bottom}" stroke="#d1242f" stroke-dasharray="4 4"/>'
            )
        return "\n".join([*parts, "</svg>", ""])

    def _summary(self) -> list[str]:
        share = self.dropped / self.documents if self.documents else 0.0
        rule = "a shared band" if self.threshold is None else f"similarity >= {self.threshold:g}"
        return [
            f"{self.documents:,} documents, {self.dropped:,} ({share:.1%}) dropped by {rule}, "
            f"{self.bands} bands of {self.rows}; {self.without_words:,} have no words",
        ]

    def _sizes(self) -> list[str]:
        lines = ["", f"Cluster sizes (the largest: {self.largest:,})"]
        most = max((size.clusters for size in self.sizes), default=0)
        for size in self.sizes:
            name = f"{size.least}" if size.least == size.most else f"{size.least}-{size.most}"
            lines.append(f"  {name:>15}  {size.clusters:>10,}  {_bar(size.clusters, most)}")
        return lines if self.sizes else [*lines, "  no near-duplicates"]

    def _curve(self) -> list[str]:
        lines = [
            "",
            "What a threshold would drop (of pairs just there, the share that is looked at)",
        ]
        most = max((point.dropped for point in self.curve), default=0)
        for point in self.curve:
            mark = "*" if point.threshold == self.threshold else " "
            lines.append(
                f" {mark}{point.threshold:>15g}  {point.dropped:>10,}  {point.found:>4.0%}  "
                f"{_bar(point.dropped, most)}"
            )
        return lines

    def _pairs(self) -> list[str]:
        lines = ["", "Pairs nearest to the threshold"] if self.near else []
        for pair in self.near:
            true = "" if pair.jaccard is None else f", by the texts {pair.jaccard:.3f}"
            lines += ["", f"  estimated {pair.estimated:.3f}{true}"]
            for sign, name, text in (
                ("<", pair.left, pair.left_excerpt),
                (">", pair.right, pair.right_excerpt),
            ):
                lines.append(f"  {sign} {name}")
                lines += [f"  {sign}   {line}" for line in text.splitlines()]
        return lines


def dedup_report(
    decision: MinHashDedup,
    doc_id: pa.ChunkedArray,
    signature: pa.ChunkedArray,
    *,
    texts: Texts | None = None,
    values: Values | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
    examples: int = 5,
) -> DedupReport:
    """Cluster sizes, pairs near the threshold, and what other thresholds would drop.

    Args:
        decision: The decision, with the settings under which signatures were made.
        doc_id: Documents that the decision saw, sorted.
        signature: Their signatures, in the same order.
        texts: How to read texts; without it there are no excerpts and no true similarities.
        values: How to read columns; needed if the decision asks for it.
        thresholds: Where to compute the curve.
        examples: Pairs near the threshold; without a threshold, the least similar of those
            that share a band.

    Cost: one round of comparisons per threshold, of documents that share a band with another.
    """
    bands, rows = decision.banding
    found = find_candidates(signature, decision.num_hashes, bands, rows)
    verdicts = decision.decide(doc_id, signature, texts if decision.needs_texts else None, values)
    twins = verdicts["duplicate_of"].combine_chunks().dictionary_encode()
    sizes = 1 + np.bincount(twins.indices.to_numpy(zero_copy_only=False), minlength=0)
    return DedupReport(
        documents=len(doc_id),
        without_words=signature.null_count,
        dropped=len(verdicts),
        threshold=decision.threshold,
        bands=bands,
        rows=rows,
        sizes=_histogram(sizes),
        largest=int(sizes.max(initial=0)),
        curve=_points(decision, found, thresholds),
        near=_near(decision, found, doc_id, texts, examples),
    )


def _histogram(sizes: I64) -> tuple[ClusterSizes, ...]:
    found = []
    largest = int(sizes.max(initial=0))
    edges = [2, 3, *(1 << k for k in range(2, 63))]
    for least, following in pairwise(edges):
        inside = sizes[(sizes >= least) & (sizes < following)]
        if len(inside):
            found.append(
                ClusterSizes(
                    least=least,
                    most=following - 1,
                    clusters=len(inside),
                    documents=int(inside.sum()),
                )
            )
        if following > largest:
            break
    return tuple(found)


def _points(
    decision: MinHashDedup, found: Candidates, thresholds: tuple[float, ...]
) -> tuple[CurvePoint, ...]:
    bands, rows = decision.banding
    points = []
    roots = None
    for threshold in sorted(set(thresholds), reverse=True):  # links of a higher one stay
        most = most_different(threshold, decision.num_hashes)
        roots = similar_clusters(found, bands, rows, most, roots)
        points.append(
            CurvePoint(
                threshold=threshold,
                dropped=int((roots != np.arange(len(roots))).sum()),
                found=share_found(threshold, bands, rows),
            )
        )
    return tuple(points[::-1])


def _near(
    decision: MinHashDedup,
    found: Candidates,
    doc_id: pa.ChunkedArray,
    texts: Texts | None,
    examples: int,
) -> tuple[NearPair, ...]:
    size = decision.num_hashes
    if decision.threshold is None:
        left, right = similar_pairs(found, *decision.banding, 1, size, _PAIRS_PER_BAND)
        target = 0.0
    else:
        most = most_different(decision.threshold, size)
        reach = max(1, size // 10)
        around = (max(0, most - reach), min(size, most + reach))
        left, right = similar_pairs(found, *decision.banding, *around, _PAIRS_PER_BAND)
        target = decision.threshold
    estimated = estimate(num_different(found, left, right), size)
    chosen = np.lexsort((right, left, np.abs(estimated - target)))[:examples]
    left, right, estimated = left[chosen], right[chosen], estimated[chosen]
    names = [take_ids(doc_id, found.rows[side]) for side in (left, right)]
    pairs = [
        NearPair(left=a, right=b, estimated=round(float(value), 6))
        for a, b, value in zip(names[0].to_pylist(), names[1].to_pylist(), estimated, strict=True)
    ]
    return tuple(_read(decision, pairs, names, texts)) if texts and pairs else tuple(pairs)


def _read(
    decision: MinHashDedup, pairs: list[NearPair], names: list[pa.Array], texts: Texts
) -> list[NearPair]:
    from penstock.kernels import minhash

    both = texts(pa.concat_arrays(names))
    told = both.to_pylist()
    places: Int = np.arange(len(pairs), dtype=np.int64)
    similarity = minhash.jaccard(*decision.shingle_hashes(both), places, places + len(pairs))
    return [
        replace(
            pair,
            jaccard=round(float(value), 6),
            left_excerpt=_excerpt(a or "", b or ""),
            right_excerpt=_excerpt(b or "", a or ""),
        )
        for pair, value, a, b in zip(
            pairs, similarity, told[: len(pairs)], told[len(pairs) :], strict=True
        )
    ]


def _excerpt(text: str, other: str) -> str:
    """Some lines of a text from shortly before where it parts from another."""
    same = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), None)
    at = min(len(text), len(other)) if same is None else same
    start = max(text.rfind("\n", 0, at) + 1, at - 80, 0)
    return text[start : start + _EXCERPT].rstrip()


def _bar(value: int, most: int) -> str:
    return "#" * round(40 * value / most) if most else ""

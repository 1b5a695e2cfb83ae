from __future__ import annotations

import json
import random
from dataclasses import replace
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from penstock.decisions.near import MinHashDedup
from penstock.decisions.near_report import DedupReport, dedup_report

DECISION = MinHashDedup(threshold=0.8)


def corpus() -> dict[str, str]:
    """Families of 2, 3 and 9 versions, with ever more words changed, and texts that stand alone."""
    rng = random.Random(0)
    texts = {"without-words": "...", "alone": "nothing like it here at all"}
    for size in (2, 3, 9):
        words = [f"w{rng.randrange(1 << 30)}" for _ in range(300)]
        for version in range(size):
            for _ in range(4):
                words[rng.randrange(300)] = f"v{rng.randrange(1 << 30)}"
            texts[f"family-{size}-{version}"] = " ".join(words)
    return dict(sorted(texts.items()))


def report(
    texts: dict[str, str], decision: MinHashDedup = DECISION, examples: int = 5
) -> DedupReport:
    column = pa.array(list(texts.values()), pa.large_string())

    def read(doc_id: pa.Array) -> pa.Array:
        return pa.array([texts[name] for name in doc_id.to_pylist()], pa.large_string())

    return dedup_report(
        decision,
        pa.chunked_array([pa.array(list(texts), pa.string())]),
        pa.chunked_array([decision.signature(pa.record_batch({"text": column}))]),
        texts=read,
        examples=examples,
    )


def test_counts_clusters_by_size() -> None:
    found = report(corpus())

    sizes = [(size.least, size.most, size.clusters, size.documents) for size in found.sizes]
    assert sizes == [(2, 2, 1, 2), (3, 3, 1, 3), (8, 15, 1, 9)]
    assert (found.documents, found.without_words, found.largest) == (16, 1, 9)
    assert found.dropped == 1 + 2 + 8


def test_the_curve_tells_what_each_threshold_drops() -> None:
    texts = corpus()
    found = report(texts)

    for point in found.curve:
        # The same bands, so that the same pairs are looked at.
        bands, rows = DECISION.banding
        other = MinHashDedup(threshold=point.threshold, bands=bands, rows=rows)
        assert point.dropped == report(texts, other).dropped, point
    dropped = [point.dropped for point in found.curve]
    assert dropped == sorted(dropped, reverse=True)
    assert dropped[0] > dropped[-1]


def test_pairs_near_the_threshold_come_nearest_first_with_both_texts() -> None:
    texts = corpus()

    pairs = report(texts, examples=4).near

    distances = [abs(pair.estimated - 0.8) for pair in pairs]
    assert len(pairs) == 4
    assert distances == sorted(distances)
    for pair in pairs:
        assert pair.left < pair.right
        assert pair.left_excerpt in texts[pair.left]
        assert pair.right_excerpt in texts[pair.right]
        assert pair.left_excerpt != pair.right_excerpt
        assert pair.jaccard == pytest.approx(pair.estimated, abs=0.15)


def test_without_a_threshold_the_least_similar_pairs_are_shown() -> None:
    pairs = report(corpus(), MinHashDedup(), examples=99).near

    estimates = [pair.estimated for pair in pairs]
    assert estimates == sorted(estimates)


def test_text_json_and_drawing_tell_the_same() -> None:
    found = report(corpus(), examples=1)

    text, told = found.to_text(), json.loads(found.to_json())
    drawing = ElementTree.fromstring(found.curve_svg())

    assert text.startswith("16 documents, 11 (68.8%) dropped by similarity >= 0.8")
    assert found.near[0].left in text
    assert told["dropped"] == 11
    assert len(told["curve"]) == len(found.curve)
    circles = drawing.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(found.curve)


@pytest.mark.parametrize(
    "texts",
    [{}, {"a": "..."}, {"a": "one", "b": "two"}],
    ids=["no-documents", "no-words", "no-duplicates"],
)
def test_nothing_to_report_is_reported(texts: dict[str, str]) -> None:
    found = report(texts)

    assert (found.dropped, found.near, found.sizes) == (0, (), ())
    assert "no near-duplicates" in found.to_text()
    assert ElementTree.fromstring(found.curve_svg()) is not None
    assert ElementTree.fromstring(replace(found, curve=()).curve_svg()) is not None

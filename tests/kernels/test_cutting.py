from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import twins

from penstock.kernels import breaks
from penstock.kernels.cutting import cut, gather

ATOMS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([breaks.WORD] * 6 + list(range(breaks.END)))),
    max_size=60,
)


@settings(deadline=None, max_examples=300)  # the first example may compile
@given(texts=st.lists(ATOMS, max_size=3), max_tokens=st.integers(8, 30), overlap=st.integers(0, 4))
def test_cut_equals_its_twin(
    texts: list[list[tuple[int, int]]], max_tokens: int, overlap: int
) -> None:
    num = sum(len(text) for text in texts)
    utf8 = np.frombuffer(b"x" * (num + 1), np.uint8)
    starts = np.arange(num)  # one byte an atom
    counts = np.array([count for text in texts for count, _ in text], np.int32)
    strengths = np.array([strength for text in texts for _, strength in text], np.uint8)
    rows = np.cumsum([0, *(len(text) for text in texts)])
    limits = np.full((2, len(texts)), [[max_tokens], [overlap]])

    spans = cut(utf8, rows[:-1], rows, starts, starts + 1, counts, strengths, *limits)

    expected = [
        [row, rows[row] + first, rows[row] + last, sum(count for count, _ in text[first:last])]
        for row, text in enumerate(texts)
        for first, last in twins.cut(
            [c for c, _ in text], [s for _, s in text], max_tokens, overlap
        )
    ]
    assert spans.tolist() == expected


@settings(deadline=None)
@given(
    data=st.binary(max_size=30), spans=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)))
)
def test_gather_copies_spans(data: bytes, spans: list[tuple[int, int]]) -> None:
    inside = [(min(a, len(data)), max(min(a, len(data)), min(b, len(data)))) for a, b in spans]
    starts, ends = np.array(inside, np.int64).reshape(-1, 2).T.copy()

    offsets, out = gather(np.frombuffer(data, np.uint8), starts, ends)

    parts = [data[a:b] for a, b in inside]
    assert out.tobytes() == b"".join(parts)
    assert np.diff(offsets).tolist() == [len(part) for part in parts]

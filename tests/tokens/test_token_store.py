from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import StoreError
from penstock.loader import Samples
from penstock.tokens import SegmentManifest, StoredTokens, TokensManifest
from penstock.tokens import write as write_module
from penstock.tokens.order import Order
from penstock.tokens.segments import Segment
from penstock.tokens.stored import count_tokens, samples_fingerprint
from penstock.tokens.write import Rows, merge_segments, write_segment


def _rows(names: list[str], seed: int = 0) -> Rows:
    lengths = [len(_sample(name)) for name in names]
    text_hashes = [hashlib.sha256(f"{seed}{name}".encode()).digest()[:16] for name in names]
    return Rows(
        pa.array(names, pa.string()),
        pa.array(text_hashes, pa.binary(16)),
        np.concatenate([np.empty(0, np.uint16), *map(_sample, names)]),
        np.cumsum([0, *lengths]),
    )


def _sample(name: str) -> np.ndarray[Any, Any]:
    return np.frombuffer((name * (len(name) % 5)).encode(), np.uint8).astype(np.uint16)


def _sorted(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def _open(folder: Path, parts: list[list[str]], gone: set[str]) -> StoredTokens:
    """Segments of these documents, of which some are deleted."""
    manifests, segments = [], []
    for number, names in enumerate(parts):
        write_segment(folder / f"part-{number}", [_rows(names[::2]), _rows(names[1::2])])
        facts = SegmentManifest(
            folder=f"part-{number}", deleted=None, num_rows=len(names), num_deleted=0
        )
        segment = Segment.open(folder, facts, "uint16")
        live = np.array([name not in gone for name in _sorted(names)])
        segments.append(segment.with_live(live))
        manifests.append((facts, segments[-1]))
    return _store(folder, segments)


def _store(folder: Path, segments: list[Segment]) -> StoredTokens:
    from penstock.arrays import save_mask

    facts = []
    for segment in segments:
        deleted = None
        if segment.deleted is not None:
            deleted = f"deleted-{segment.name}.npy"
            save_mask(folder / deleted, segment.deleted)
        facts.append(
            SegmentManifest(
                folder=segment.name,
                deleted=deleted,
                num_rows=segment.num_rows,
                num_deleted=segment.num_rows - segment.num_live,
            )
        )
    order = Order.of(segments)
    if order.starts is not None:
        order.save(folder / "order")
    manifest = TokensManifest(
        made_by="x",
        tokenizer="t.json",
        settings={},
        dtype="uint16",
        segments=tuple(facts),
        order=None if order.starts is None else "order",
        num_samples=order.num_samples,
        num_tokens=count_tokens(segments),
        fingerprint=samples_fingerprint("x", segments),
    )
    return StoredTokens(folder, TokensManifest.from_json(manifest.to_json()))


def _assert_holds(tokens: StoredTokens, names: list[str]) -> None:
    expected = _sorted(names)
    every = np.arange(len(expected))
    samples = [_sample(name).tolist() for name in expected]

    assert isinstance(tokens, Samples)
    assert tokens.num_samples == len(expected)
    assert tokens.doc_ids(every).to_pylist() == expected
    assert tokens.lengths(0, len(expected)).tolist() == [len(sample) for sample in samples]
    values, begins = tokens.gather(every[::-1])
    assert [row.tolist() for row in np.split(values, begins[1:-1])][: len(every)] == samples[::-1]
    assert tokens.num_tokens == sum(map(len, samples))


NAMES = [f"doc {number}" * (number % 4) + str(number) for number in range(900)]


@pytest.mark.parametrize(
    ("parts", "gone"),
    [
        pytest.param([NAMES], set(), id="one-segment"),
        pytest.param([NAMES], set(NAMES[::3]), id="one-segment-with-deletions"),
        pytest.param([NAMES[:600], NAMES[600:]], set(), id="two-segments"),
        pytest.param([NAMES[:600], NAMES[600:890], NAMES[890:]], set(NAMES[5::7]), id="three"),
        pytest.param([NAMES[:5], NAMES[5:9]], set(NAMES[:5]), id="one-all-deleted"),
        pytest.param([NAMES[:5]], set(NAMES), id="all-deleted"),
        pytest.param([], set(), id="none"),
    ],
)
def test_samples_come_in_the_order_of_their_names_hashes(
    parts: list[list[str]], gone: set[str], tmp_path: Path
) -> None:
    tokens = _open(tmp_path, parts, gone)

    _assert_holds(tokens, [name for part in parts for name in part if name not in gone])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.sets(st.text(min_size=1), max_size=40),
    cut=st.integers(0, 40),
    gone=st.sets(st.integers(0, 39)),
)
def test_order_and_fingerprint_do_not_depend_on_segments(
    names: set[str], cut: int, gone: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    every = sorted(names)
    dead = {name for i, name in enumerate(every) if i in gone}
    rest = [name for name in every if name not in dead]
    folder = tmp_path_factory.mktemp("store")
    parts = [part for part in (every[:cut], every[cut:]) if part]

    split = _open(folder, parts, dead)
    whole = _open(tmp_path_factory.mktemp("fresh"), [rest] if rest else [], set())

    _assert_holds(split, rest)
    assert split.fingerprint == whole.fingerprint


def test_a_piece_of_each_sample_can_be_gathered(tmp_path: Path) -> None:
    tokens = _open(tmp_path, [NAMES[:400], NAMES[400:]], set(NAMES[::5]))
    lengths = tokens.lengths(0, tokens.num_samples)
    positions = np.flatnonzero(lengths > 9)[::-1]

    values, begins = tokens.gather(positions, np.full(len(positions), 3), lengths[positions] - 7)

    whole = [tokens.gather(np.array([position]))[0] for position in positions]
    assert begins.tolist() == np.cumsum([0, *(lengths[positions] - 7)]).tolist()
    assert values.tolist() == np.concatenate([row[3:-4] for row in whole]).tolist()


def test_a_merge_keeps_what_is_live_and_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module, "_COPY_BYTES", 100)
    gone = set(NAMES[::4])
    parts = _open(tmp_path, [NAMES[:500], NAMES[500:]], gone)

    merge_segments(tmp_path / "merged", parts._segments)

    rest = [name for name in NAMES if name not in gone]
    facts = SegmentManifest(folder="merged", deleted=None, num_rows=len(rest), num_deleted=0)
    merged = _store(tmp_path, [Segment.open(tmp_path, facts, "uint16")])
    _assert_holds(merged, rest)
    assert merged.fingerprint == parts.fingerprint


@pytest.mark.parametrize("parts", [[NAMES], [NAMES[:300], NAMES[300:]]], ids=["one", "two"])
def test_a_slice_holds_some_documents_in_the_same_order(
    parts: list[list[str]], tmp_path: Path
) -> None:
    tokens = _open(tmp_path, parts, set(NAMES[:50]))

    some = tokens.only(pa.array([*NAMES[40:200:2], "not there"]))
    fewer = some.only(pa.array(NAMES[100:]))

    _assert_holds(some, NAMES[50:200:2])
    _assert_holds(fewer, NAMES[100:200:2])
    assert len({tokens.fingerprint, some.fingerprint, fewer.fingerprint}) == 3
    _assert_holds(tokens, NAMES[50:])


def test_a_pickle_opens_the_same_samples(tmp_path: Path) -> None:
    tokens = _open(tmp_path, [NAMES[:300], NAMES[300:]], set(NAMES[::9]))
    some = tokens.only(pa.array(NAMES[::2]))

    pickled = pickle.dumps(some)

    assert len(pickled) < 2000
    assert pickle.loads(pickled).fingerprint == some.fingerprint
    assert pickle.loads(pickle.dumps(tokens)).fingerprint == tokens.fingerprint
    _assert_holds(pickle.loads(pickled), [n for n in NAMES[::2] if n not in NAMES[::9]])


@pytest.mark.parametrize("name", ["tokens", "offsets", "hashes", "id_bytes"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_file_is_named(name: str, how: str, tmp_path: Path) -> None:
    tokens = _open(tmp_path, [NAMES], set())
    path = tmp_path / "part-0" / f"{name}.npy"
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:-8])

    with pytest.raises(StoreError, match=rf"{name}\.npy.*damaged.*penstock tokenizer rebuild"):
        StoredTokens(tmp_path, tokens.manifest)

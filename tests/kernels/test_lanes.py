from __future__ import annotations

import zlib
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import lanes
from penstock.kernels.lanes import LANE, copy_lane, first_bit, not_clean, not_literal

BYTES = st.one_of(
    st.binary(min_size=LANE + 3, max_size=LANE + 3),
    st.lists(
        st.sampled_from(b'a ~\t\n\r\x1f\x7f\x80\xff"\\!'), min_size=LANE + 3, max_size=LANE + 3
    ),
).map(bytes)


# Not kept on disk: numba would not see that the lanes have changed.
@numba.njit  # type: ignore[untyped-decorator, unused-ignore]
def _literal(data: npt.NDArray[np.uint8], i: int) -> tuple[int, int]:
    mask = not_literal(data, i)
    return mask, first_bit(mask)


@numba.njit  # type: ignore[untyped-decorator, unused-ignore]
def _clean(data: npt.NDArray[np.uint8], i: int) -> tuple[int, int]:
    mask = not_clean(data, i)
    return mask, first_bit(mask)


@numba.njit  # type: ignore[untyped-decorator, unused-ignore]
def _copied(data: npt.NDArray[np.uint8], i: int, o: int) -> npt.NDArray[np.uint8]:
    out = np.zeros(LANE + 8, np.uint8)
    copy_lane(data, i, out, o)
    return out


def _bits(found: list[bool]) -> tuple[int, int]:
    mask = sum(1 << place for place, each in enumerate(found) if each)
    return mask, found.index(True) if True in found else LANE


@settings(deadline=None)  # the first example compiles
@given(data=BYTES, i=st.integers(0, 3))
def test_what_does_not_stand_for_itself_in_a_json_string_is_found(data: bytes, i: int) -> None:
    found = _literal(np.frombuffer(data, np.uint8), i)

    assert found == _bits([byte < 0x20 or byte in b'"\\' for byte in data[i : i + LANE]])


@settings(deadline=None)
@given(data=BYTES, i=st.integers(1, 3))
def test_what_normalising_may_change_is_found(data: bytes, i: int) -> None:
    found = _clean(np.frombuffer(data, np.uint8), i)

    plain = [
        0x20 <= byte < 0x7F
        or byte == 0x09
        or (byte == 0x0A and (0x20 < last < 0x7F or last == 0x0A))
        for last, byte in zip(data[i - 1 :], data[i : i + LANE], strict=False)
    ]
    assert found == _bits([not each for each in plain])


@pytest.mark.parametrize(("i", "o"), [(0, 0), (1, 0), (0, 3), (3, 8)])
def test_a_lane_is_copied_from_anywhere_to_anywhere(i: int, o: int) -> None:
    data = np.arange(1, LANE + 4, dtype=np.uint8)

    out = _copied(data, i, o)

    assert out.tolist() == [0] * o + data[i : i + LANE].tolist() + [0] * (8 - o)


def test_files_that_use_lanes_name_them_by_their_checksum() -> None:
    source = Path(lanes.__file__)
    checksum = f"_LANES = 0x{zlib.crc32(source.read_bytes()):08X}\n"

    users = [
        path for path in source.parent.glob("*.py") if "kernels.lanes import" in path.read_text()
    ]

    assert len(users) == 2
    assert [path.name for path in users if checksum not in path.read_text()] == [], checksum

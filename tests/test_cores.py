import os
from pathlib import Path

import pytest

from penstock.cores import num_cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({"cpu.max": "100000 100000\n"}, 1, id="version-2-quota"),
        pytest.param({"cpu.max": "max 100000\n"}, None, id="version-2-no-quota"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="half-a-core-is-one"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
            id="version-1-quota",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
            id="version-1-no-quota",
        ),
        pytest.param({}, None, id="no-cgroup"),
    ],
)
def test_a_cgroup_quota_cuts_the_cores(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert num_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))

"""How many cores this process may use: the one place that decides it."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path


@cache
def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: CPU affinity, cut by a cgroup quota.

    Libraries that size their pools by the host's cores oversubscribe inside a
    container; every pool in Penstock is sized by this number instead.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS and Windows have no affinity call
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_quota(cgroup))))


def _cgroup_quota(cgroup: Path) -> float:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()  # version 1
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    if quota.strip() in ("max", "-1"):
        return math.inf
    return int(quota) / int(period)

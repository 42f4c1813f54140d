"""How many threads this process may use: the affinity mask and the container's CPU quota, not the host's cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_threads(cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return how many CPUs this process may use, at least 1.

    The smaller of the affinity mask and the cgroup CPU quota (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), rounded up.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup_root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def limit_tokenizer_threads(num_threads: int) -> None:
    """Keep `tokenizers` to `num_threads`, unless RAYON_NUM_THREADS says otherwise.

    It would take the host's core count, whatever the quota. Its library reads the variable once, at its first batch.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(num_threads))


def cpu_quota(cgroup_root: Path = _CGROUP_ROOT) -> float | None:
    """Return the container's CPU quota in cores, or None where there is none.

    Read at the mount's root, which inside a container is the container's own group.
    """
    v2 = _read(cgroup_root / "cpu.max").split()
    if len(v2) == 2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota = _read(cgroup_root / "cpu" / "cpu.cfs_quota_us")
    period = _read(cgroup_root / "cpu" / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

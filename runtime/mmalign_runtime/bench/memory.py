"""How much memory this process holds, and how much it held at most."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

_STATUS = Path("/proc/self/status")
_KIB = 1024


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident bytes of the measuring process: with its towers loaded, before the first item, and at its peak.

    `loaded_bytes` is None where Linux is not: other systems tell the peak alone.
    """

    loaded_bytes: int | None
    peak_bytes: int


def resident_bytes(status: Path = _STATUS) -> int | None:
    """Return what this process holds now, None where Linux is not."""
    return _field(status, "VmRSS")


def peak_bytes(status: Path = _STATUS) -> int:
    """Return the most that this process has held since it started."""
    high_water = _field(status, "VmHWM")
    if high_water is not None:
        return high_water
    import resource  # not on Windows, which has no VmHWM either

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def _field(status: Path, name: str) -> int | None:
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * _KIB if found else None

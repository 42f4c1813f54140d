"""Which processor this is: its name, and the instructions that it has."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_NAME, _FLAGS = "model name", "flags"
_ARM_FLAGS = "Features"


def cpu_name(cpu_info: Path = _CPU_INFO) -> str:
    """Return the processor's name as the kernel gives it, or the architecture where it gives none."""
    return _first(cpu_info, (_NAME,)) or platform.processor() or platform.machine()


def cpu_features(cpu_info: Path = _CPU_INFO) -> str:
    """Return the processor's instructions as the kernel lists them, or its name where it lists none."""
    return _first(cpu_info, (_FLAGS, _ARM_FLAGS)) or cpu_name(cpu_info)


def _first(cpu_info: Path, names: tuple[str, ...]) -> str:
    try:
        with cpu_info.open(encoding="utf-8", errors="replace") as lines:  # a large machine lists hundreds of processors
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""

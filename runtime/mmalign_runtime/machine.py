"""Which machine this is, as far as figures measured on it depend on it: its processor, its threads, its engines."""

from __future__ import annotations

import msgspec

from mmalign_runtime.engine.engines import find_engine, installed_engines
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.threads import available_threads


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine: the processor's name, how many threads this process may use, the versions of the engines here."""

    cpu: str
    num_threads: int
    engine_versions: dict[str, str]


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    versions = {name: find_engine(name).version() for name in installed_engines()}
    return Machine(cpu=cpu_name(), num_threads=available_threads(), engine_versions=versions)

"""A profile: how one bundle is run best on one machine, as measured there by `mmalign bench --save-profile`.

It says what to ask of `Embedder.load`, never what a vector is. It is refused where it was not measured: on another
machine, with other files or another version of its engine, its choice may be the wrong one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from mmalign_runtime.atomic import replacing
from mmalign_runtime.config import GONE_FIELDS, RuntimeConfig
from mmalign_runtime.engine.engines import find_engine, installed_engines
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import MmalignError, ProfileError
from mmalign_runtime.spec import BundleSpec, Modality
from mmalign_runtime.strict_json import JsonError, read_json

_FORMAT_VERSION = 1
_AGAIN = "Measure again here: `mmalign bench BUNDLE --engine all --save-profile FILE`."

Goal = Literal["latency", "throughput"]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine: the processor's name, how many threads this process may use, the versions of the engines here."""

    cpu: str
    num_threads: int
    engine_versions: dict[str, str]


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    versions = {name: find_engine(name).version() for name in installed_engines()}
    return Machine(cpu=cpu_name(), num_threads=available_threads(), engine_versions=versions)


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of items at one batch size: percentiles of the ms that a whole batch took, and items a second."""

    kind: Modality
    batch_size: Count
    p50_ms: float
    p99_ms: float
    items_per_s: float


class Profile(RuntimeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A config that was measured: what it was chosen for, where it holds, and the figures it rests on.

    `variant_id` is that of the files that were run, `created` a time (ISO 8601, UTC).
    """

    goal: Goal
    space_id: str
    variant_id: str
    machine: Machine
    measured: tuple[Measured, ...]
    created: str
    format_version: int = _FORMAT_VERSION

    def check_fits(self, spec: BundleSpec) -> None:
        """Raise ProfileError, naming all that differs, unless the profile was made for this bundle and this machine."""
        try:
            engine = find_engine(self.engine)
            version = engine.version()
        except MmalignError as error:
            raise ProfileError(f"the profile asks for engine {self.engine!r}, which is not here: {error}") from error
        then = self.machine
        seen = {
            "the space": (self.space_id, spec.space_id),
            "the variant": (self.variant_id, engine.variant_id(spec, self.precision)),
            "the processor": (then.cpu, cpu_name()),
            "the number of threads": (str(then.num_threads), str(available_threads())),
            f"{self.engine}'s version": (then.engine_versions.get(self.engine, "unknown"), version),
        }
        differ = [f"{name} is {here}, it was made for {made}" for name, (made, here) in seen.items() if made != here]
        if differ:
            raise ProfileError(f"the profile does not fit: {'; '.join(differ)}. {_AGAIN}")


def load_profile(path: str | Path) -> Profile:
    """Read a profile. Raises ProfileError when there is none, or this version cannot read it."""
    try:
        found = read_json(Path(path).read_bytes(), dict[str, object])
        profile = msgspec.convert({name: value for name, value in found.items() if name not in GONE_FIELDS}, Profile)
    except OSError as error:
        raise ProfileError(f"the profile {path} cannot be read: {error.strerror}. {_AGAIN}") from error
    except (JsonError, msgspec.ValidationError) as error:
        raise ProfileError(f"{path} is not a profile that this version reads: {error}. {_AGAIN}") from error
    if profile.format_version != _FORMAT_VERSION:
        seen = f"format version {profile.format_version}, expected {_FORMAT_VERSION}"
        raise ProfileError(f"{path} has {seen}. {_AGAIN}")
    return profile


def save_profile(path: str | Path, profile: Profile) -> None:
    """Write a profile as JSON, in one step."""
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")

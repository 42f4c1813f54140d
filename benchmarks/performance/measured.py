"""Everything that the page shows, read from results/*.json."""

from pathlib import Path
from typing import get_type_hints

import msgspec

from benchmarks.against.cold_start import ColdStart
from benchmarks.against.results import Results
from benchmarks.against.single import Single
from benchmarks.harness.environment import Environment, Measurement
from benchmarks.harness.results import read_result

RESULTS = Path(__file__).with_name("results")


class Measured(msgspec.Struct, frozen=True):
    """One result of each kind."""

    against: Results
    cold_start: Measurement[ColdStart]
    single: Measurement[Single]

    def environments(self) -> dict[str, Environment]:
        """Return the card of each result, by the name of its file."""
        return {name: getattr(self, name).environment for name in self.__struct_fields__}


def read_measured(folder: Path = RESULTS) -> Measured:
    """Read all results. Raises FileNotFoundError for one that is missing, msgspec.ValidationError for others."""
    kinds = get_type_hints(Measured)
    return Measured(**{name: read_result(folder / f"{name}.json", kind) for name, kind in kinds.items()})

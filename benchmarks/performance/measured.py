"""Everything that the page shows, read from results/*.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.against.cold_start import ColdStarts, read_cold_starts
from benchmarks.against.results import Results, read_results
from benchmarks.against.single import Singles, read_singles
from benchmarks.growth.results import Curves, Growth, read_curves, read_growth
from benchmarks.reference.environment import Environment
from benchmarks.roofline.results import Roofline, read_roofline

RESULTS = Path(__file__).with_name("results")


class Measured(msgspec.Struct, frozen=True):
    """One result of each kind."""

    against: Results
    cold_start: ColdStarts
    single: Singles
    roofline: Roofline
    growth: Growth
    curves: Curves

    def environments(self) -> dict[str, Environment]:
        """Return the card of each result, by the name of its file."""
        return {name: getattr(self, name).environment for name in self.__struct_fields__}


def read_measured(folder: Path = RESULTS) -> Measured:
    """Read all results. Raises FileNotFoundError for one that is missing, msgspec.ValidationError for others."""
    return Measured(
        against=read_results(folder / "against.json"),
        cold_start=read_cold_starts(folder / "cold_start.json"),
        single=read_singles(folder / "single.json"),
        roofline=read_roofline(folder / "roofline.json"),
        growth=read_growth(folder / "growth.json"),
        curves=read_curves(folder / "curves.json"),
    )

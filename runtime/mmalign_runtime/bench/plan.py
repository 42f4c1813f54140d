"""What a measurement is made of, and how its time is shared out."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mmalign_runtime.bench.open_loop import Arrivals
from mmalign_runtime.errors import InputError

Part: TypeAlias = Literal["stages", "bulk", "closed-loop", "open-loop", "cold-start"]

PARTS: tuple[Part, ...] = ("stages", "bulk", "closed-loop", "open-loop", "cold-start")
DEFAULT_BATCH_SIZES = (1, 8, 32)
# Below, between and close to what the callers of the closed loop got: where queueing is little, felt, and most of it.
RATE_SHARES = (0.5, 0.8, 0.95)

# Queues need time to build up, and laps of a large batch are long.
_TIME_SHARES: dict[Part, float] = {"stages": 0.3, "bulk": 0.2, "closed-loop": 0.15, "open-loop": 0.35}


class BenchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure and for how long.

    `seconds` are shared among the timed parts; cold starts, `num_starts` of each tower, come on top. With `num_rounds`
    stages and bulk take that many laps of each batch size instead. `num_callers` of the closed loop: None for one
    caller, and for as many as there are threads. `rates_per_s` of the open loop: none for RATE_SHARES of the closed
    loop's throughput.
    """

    parts: tuple[Part, ...] = PARTS
    batch_sizes: tuple[int, ...] = DEFAULT_BATCH_SIZES
    seconds: float = 40.0
    num_rounds: int | None = None
    num_callers: tuple[int, ...] | None = None
    rates_per_s: tuple[float, ...] = ()
    arrivals: Arrivals = "poisson"
    seed: int = 0
    num_starts: int = 3

    def check(self) -> None:
        """Raise InputError when a number makes no sense."""
        counts = (*self.batch_sizes, *(self.num_callers or ()), self.num_starts, self.num_rounds or 1)
        if not self.batch_sizes or not self.parts or min(counts) < 1 or self.num_callers == ():
            raise InputError(
                f"seen {self.num_rounds} rounds of batches of {list(self.batch_sizes)}, {self.num_callers} callers and "
                f"{self.num_starts} starts for {list(self.parts)}, expected at least 1 everywhere."
            )
        if min(self.seconds, *self.rates_per_s, self.seconds) <= 0:
            raise InputError(f"seen {self.seconds} s and rates {list(self.rates_per_s)}, expected more than 0.")

    @property
    def has_closed_loop(self) -> bool:
        """Whether the closed loop is run: the open loop's rates and servers are taken from it."""
        return "closed-loop" in self.parts or "open-loop" in self.parts

    def part_seconds(self, part: Part) -> float:
        """Return the seconds of a timed part, those of the parts that are not measured shared among the others."""
        shares = {name: share for name, share in _TIME_SHARES.items() if name in self.parts}
        if self.has_closed_loop:
            shares["closed-loop"] = _TIME_SHARES["closed-loop"]
        return self.seconds * shares[part] / sum(shares.values())

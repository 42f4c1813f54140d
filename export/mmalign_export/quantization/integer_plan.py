"""How a fused transformer's products are to be rounded."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mmalign_export.quantization.rounding import Granularity
from mmalign_export.quantization.sites import Role, Site


class IntegerPlan(msgspec.Struct, frozen=True):
    """How products are rounded: by role, "static" unless `granularity` says "token"; `excluded` sites stay float32.

    `smoothing` is SmoothQuant's alpha (0 leaves channels as they are), `percentile` of sample values bounds static
    scales (100: their extremes).
    """

    granularity: Mapping[Role, Granularity] = msgspec.field(default_factory=dict)
    smoothing: float = 0.7
    percentile: float = 100.0
    excluded: frozenset[str] = frozenset()

    def rounds(self, site: Site) -> bool:
        """Whether a site is to be rounded."""
        return site.name not in self.excluded

    def granularity_of(self, site: Site) -> Granularity:
        """Return how what flows into a site is rounded."""
        return self.granularity.get(site.role, "static")

    def smooths(self, site: Site) -> bool:
        """Whether channels are divided before what flows into a site is rounded; GELU's output by token bears none."""
        return self.smoothing > 0 and not (site.role == "down" and self.granularity_of(site) == "token")

"""Whose drawings a pack holds, and on which terms. Needs nothing that draws."""

from __future__ import annotations

import msgspec

from benchmarks.harness.packages import Package


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package of drawings, its licence (an SPDX identifier), and what was done to the drawings."""

    name: str
    package: Package
    licence: str
    licence_url: str
    attribution: str
    changes: str = "SVG rendered at 72x72, encoded as lossy WebP"

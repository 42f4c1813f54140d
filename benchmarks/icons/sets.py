"""The sets of drawings and icons, read from sets.toml: their packages, licences, and how their names are read.

Drawings have colours of their own and join the emoji in training; icons are one colour, for interfaces.
"""

from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.emoji.styles import Source
from benchmarks.harness.packages import Package, read_listed


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of search words in another package, of the same names."""

    package: Package
    file: str


class IconSet(Source, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set, as a package of Iconify has it.

    `variants` are endings of names that say how an icon is drawn and not what it shows; of several variants one is
    taken. `is_emoji` sets hold emoji alone: what is not matched to one is left out.
    """

    kind: Literal["drawings", "icons"]
    variants: tuple[str, ...] = ()
    is_emoji: bool = False
    tags: Tags | None = None


SETS = read_listed(Path(__file__).with_suffix(".toml"), IconSet)

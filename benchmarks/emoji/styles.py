"""The four styles, read from styles.toml: where each one's drawings come from, and how they are read."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from benchmarks.emoji.captions import Concept, concept_key
from benchmarks.emoji.emojione import emojione_svgs
from benchmarks.harness.packages import Archive, Package, read_listed


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package of drawings, its licence (an SPDX identifier), and what was done to the drawings."""

    name: str
    package: Package
    licence: str
    licence_url: str
    attribution: str
    changes: str = "SVG rendered at 72x72, encoded as lossy WebP"


class Style(Source, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of drawing emoji. `pack_path` is below the output folder."""

    pack_path: str
    files: str = ""

    def read_drawings(self, archive: Archive, concepts: Sequence[Concept]) -> dict[str, bytes]:
        """Return the PNG or SVG files of the concepts that the style drew, by concept key."""
        if not self.files:
            return emojione_svgs(archive, concepts)
        folder, _, pattern = self.files.rpartition("/")
        wanted = {concept.key for concept in concepts}
        drawings: dict[str, bytes] = {}
        for path, content in archive.files(folder, pattern).items():
            key = concept_key(PurePosixPath(path).stem)
            if key in wanted:
                assert key not in drawings, f"{path} is a second drawing of {key}"
                drawings[key] = content
        return drawings


STYLES = read_listed(Path(__file__).with_suffix(".toml"), Style)

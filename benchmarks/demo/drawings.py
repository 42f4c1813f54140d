"""The packs seen from the demo: drawings of the test concepts as files, and whose work they are.

A pack's licence and attribution come from its own Parquet metadata, where the builder wrote them.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import pyarrow.parquet as pq

from mmalign.config import DataConfig
from mmalign.run.pairs import load_sources


class Drawing(msgspec.Struct, frozen=True):
    """One style's drawing of one concept; `image` is the bytes of a .webp file."""

    style: str
    concept: str
    label: str
    image: bytes
    is_held_out: bool

    @property
    def name(self) -> str:
        """The path of its file below the folder of drawings: such as noto/banana_1f34c.webp."""
        plain = unicodedata.normalize("NFKD", self.label).encode("ascii", "ignore").decode()
        words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
        return f"{self.style}/{words}_{self.concept}.webp"


class Attribution(msgspec.Struct, frozen=True):
    """Whose work something is, and on which terms."""

    name: str
    credit: str
    licence: str
    licence_url: str
    changes: str


def read_test_drawings(config: DataConfig) -> tuple[Drawing, ...]:
    """Return the drawings on the test side of every pack that is evaluated, as training and evaluation split them."""
    return tuple(
        Drawing(source.name, pair.concept, pair.captions[0], cast("bytes", pair.image), source.is_held_out)
        for source in load_sources(config)
        for pair in source.splits.test
    )


def read_attributions(config: DataConfig) -> tuple[Attribution, ...]:
    """Return each pack's attribution, and once that of the captions they share."""
    packs = [pq.read_schema(source.path).metadata for source in (*config.sources, *config.held_out)]
    drawings = [_attribution(metadata, metadata[b"style"].decode(), "") for metadata in packs]
    return (*drawings, _attribution(packs[0], "captions", "captions_"))


def write_drawings(drawings: Sequence[Drawing], folder: Path) -> None:
    for drawing in drawings:
        path = folder / drawing.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawing.image)


def write_labels(drawings: Sequence[Drawing], path: Path) -> tuple[str, ...]:
    """Write the labels of the drawings' concepts, one a line, and return them in that order."""
    labels = tuple(dict.fromkeys(drawing.label for drawing in drawings))
    path.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return labels


def _attribution(metadata: dict[bytes, bytes], name: str, prefix: str) -> Attribution:
    credit, licence, changes = (
        metadata[f"{prefix}{key}".encode()].decode() for key in ("attribution", "licence", "changes")
    )
    url = metadata.get(f"{prefix}licence_url".encode(), b"").decode()
    return Attribution(name=name, credit=credit, licence=licence, licence_url=url, changes=changes)

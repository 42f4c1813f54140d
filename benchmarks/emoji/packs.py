"""What a pack is: one Parquet file a style, a row a concept with its 72 x 72 WebP; metadata name licence and source."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image, features

from benchmarks.emoji.captions import EMOJIBASE, Concept
from benchmarks.emoji.styles import Source

_CAPTIONS = {
    "captions_source": str(EMOJIBASE),
    "captions_sha256": EMOJIBASE.sha256,
    "captions_licence": "MIT AND Unicode-3.0",
    "captions_attribution": "emojibase-data, copyright 2017-2019 Miles Johnson; "
    "annotations from Unicode CLDR 48, copyright Unicode, Inc.",
    "captions_changes": "joined by normalised hex code; flags, skin tones and components left out",
}
_STRING, _STRINGS = pa.string(), pa.list_(pa.string())
_COLUMNS = {
    **{"emoji": _STRING, "label": _STRING, "keywords": _STRINGS, "label_zh": _STRING, "keywords_zh": _STRINGS},
    **{"group": _STRING, "subgroup": _STRING},
}
SCHEMA = pa.schema({"concept": _STRING, **_COLUMNS, "style": _STRING, "image": pa.binary()})

SIDE_PX = 72  # what Twemoji ships, and OpenMoji's own grid

# Measured on 160 emoji of each style: with alpha at 80 instead of 50 Noto's pack grows by a quarter, and the
# drawings laid on white stay as near to the originals (2.7 instead of 2.9 of 255 levels on average).
COLOUR_QUALITY = 60
ALPHA_QUALITY = 50
SLOWEST_METHOD = 6

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def build_table(style: Source, concepts: Sequence[Concept], drawings: Mapping[str, bytes]) -> pa.Table:
    """Return the pack of one style: a row for every concept it drew, in the order of `concepts`."""
    drawn = [concept for concept in concepts if concept.key in drawings]
    columns = {
        "concept": [concept.key for concept in drawn],
        **{name: [getattr(concept, name) for concept in drawn] for name in _COLUMNS},
        "style": [style.name] * len(drawn),
        "image": [encode_webp(render(drawings[concept.key])) for concept in drawn],
    }
    return pa.table(columns, schema=SCHEMA.with_metadata(source_metadata(style) | _CAPTIONS))


def source_metadata(style: Source) -> dict[str, str]:
    """Return the Parquet key-value metadata about a pack's drawings."""
    return {
        "style": style.name,
        "source": str(style.package),
        "source_sha256": style.package.sha256,
        "licence": style.licence,
        "licence_url": style.licence_url,
        "attribution": style.attribution,
        "changes": style.changes,
        "encoder": encoder_version(),
    }


def write_pack(table: pa.Table, path: Path) -> None:
    """Write a pack; the same table gives the same bytes with the same pyarrow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def render(drawing: bytes) -> Image.Image:
    """Return a PNG or SVG file as an RGBA image of SIDE_PX a side, transparent where nothing is drawn."""
    if not drawing.startswith(PNG_SIGNATURE):
        # System fonts are skipped so that no machine's fonts can enter a drawing.
        drawing = resvg_py.svg_to_bytes(
            svg_string=drawing.decode(), width=SIDE_PX, height=SIDE_PX, skip_system_fonts=True
        )
    with Image.open(io.BytesIO(drawing)) as image:
        rgba = image.convert("RGBA")
    if rgba.size == (SIDE_PX, SIDE_PX):
        return rgba
    # Bicubic: Lanczos rings at Noto's edges, which costs a fifth more bytes for the same picture.
    return rgba.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def encode_webp(image: Image.Image) -> bytes:
    """Return the image as a lossy WebP file that keeps its alpha channel."""
    buffer = io.BytesIO()
    quality = {"quality": COLOUR_QUALITY, "alpha_quality": ALPHA_QUALITY, "method": SLOWEST_METHOD}
    image.save(buffer, "WEBP", exact=False, **quality)
    return buffer.getvalue()


def encoder_version() -> str:
    """Name the encoder: another one may give other bytes for the same drawing."""
    return f"libwebp {features.version('webp')}"

"""What a pack is: one Parquet file a style, a row a concept, and metadata that names licence and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.emoji.captions import EMOJIBASE, Concept
from benchmarks.emoji.render import encode_webp, encoder_version, render
from benchmarks.emoji.source import Source

_CAPTIONS = {
    "captions_source": str(EMOJIBASE),
    "captions_sha256": EMOJIBASE.sha256,
    "captions_licence": "MIT AND Unicode-3.0",
    "captions_attribution": "emojibase-data, copyright 2017-2019 Miles Johnson; "
    "annotations from Unicode CLDR 48, copyright Unicode, Inc.",
    "captions_changes": "joined by normalised hex code; flags, skin tones and components left out",
}
SCHEMA = pa.schema(
    [
        ("concept", pa.string()),
        ("emoji", pa.string()),
        ("label", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("label_zh", pa.string()),
        ("keywords_zh", pa.list_(pa.string())),
        ("group", pa.string()),
        ("subgroup", pa.string()),
        ("style", pa.string()),
        ("image", pa.binary()),
    ]
)


def build_table(style: Source, concepts: Sequence[Concept], drawings: Mapping[str, bytes]) -> pa.Table:
    """Return the pack of one style: a row for every concept it drew, in the order of `concepts`."""
    drawn = [concept for concept in concepts if concept.key in drawings]
    columns = {
        "concept": [concept.key for concept in drawn],
        "emoji": [concept.emoji for concept in drawn],
        "label": [concept.label for concept in drawn],
        "keywords": [concept.keywords for concept in drawn],
        "label_zh": [concept.label_zh for concept in drawn],
        "keywords_zh": [concept.keywords_zh for concept in drawn],
        "group": [concept.group for concept in drawn],
        "subgroup": [concept.subgroup for concept in drawn],
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

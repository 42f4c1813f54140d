"""The committed emoji packs: their columns, images, concepts and licences."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.emoji.captions import concept_key
from benchmarks.emoji.styles import STYLES, Style

EMOJI_DIR = Path(__file__).resolve().parents[2] / "benchmarks" / "emoji"
EVERY_STYLE = pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)

COLUMN_TYPES = {
    "concept": pa.string(),
    "emoji": pa.string(),
    "label": pa.string(),
    "keywords": pa.list_(pa.string()),
    "label_zh": pa.string(),
    "keywords_zh": pa.list_(pa.string()),
    "group": pa.string(),
    "subgroup": pa.string(),
    "style": pa.string(),
    "image": pa.binary(),
}
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
HAIR = {"1f9b0", "1f9b1", "1f9b2", "1f9b3"}


@cache
def pack(style: Style) -> pa.Table:
    return pq.read_table(EMOJI_DIR / style.pack_path)


def column(style: Style, name: str) -> list[Any]:
    return pack(style).column(name).to_pylist()


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def drawing(style: Style, concept: str) -> Image.Image:
    row = column(style, "concept").index(concept)
    return Image.open(io.BytesIO(pack(style).column("image")[row].as_py())).convert("RGBA")


@EVERY_STYLE
def test_pack_has_the_documented_columns(style: Style) -> None:
    assert dict(zip(pack(style).schema.names, pack(style).schema.types, strict=True)) == COLUMN_TYPES
    assert all(pack(style).column(name).null_count == 0 for name in COLUMN_TYPES)


@EVERY_STYLE
def test_concepts_are_unique_and_sorted(style: Style) -> None:
    concepts = column(style, "concept")
    assert concepts == sorted(set(concepts))


@EVERY_STYLE
def test_concept_is_the_key_of_its_emoji(style: Style) -> None:
    for concept, emoji in zip(column(style, "concept"), column(style, "emoji"), strict=True):
        assert concept_key("-".join(f"{ord(character):04X}" for character in emoji)) == concept


@EVERY_STYLE
def test_flags_skin_tones_and_hair_are_left_out(style: Style) -> None:
    for concept in column(style, "concept"):
        parts = concept.split("-")
        assert SKIN_TONES.isdisjoint(parts), concept
        assert not any(0x1F1E6 <= int(part, 16) <= 0x1F1FF for part in parts), concept
        assert concept not in HAIR
    assert {"flags", "components"}.isdisjoint(column(style, "group"))


@EVERY_STYLE
def test_every_concept_is_captioned_in_both_languages(style: Style) -> None:
    for name in ("label", "keywords", "label_zh", "keywords_zh", "group", "subgroup"):
        assert all(column(style, name)), name
    assert not any(is_chinese(label) for label in column(style, "label"))
    assert {label for label in column(style, "label_zh") if not is_chinese(label)} <= {"DNA", "DVD", "OK"}


@EVERY_STYLE
def test_images_are_72_px_webp_with_alpha_and_none_is_blank(style: Style) -> None:
    opaque = 0
    for concept, content in zip(column(style, "concept"), column(style, "image"), strict=True):
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.size) == ("WEBP", (72, 72)), concept
        opaque += image.mode == "RGB"  # what WebP makes of an alpha channel that is full everywhere
        covered = np.asarray(image.convert("RGBA"))[:, :, 3] > 127
        assert covered.mean() > 0.02, concept
    assert opaque <= (20 if style.name == "emojione" else 0)


@EVERY_STYLE
@pytest.mark.parametrize(("concept", "channel"), [("2764", 0), ("1f34f", 1), ("1f499", 2)])
def test_red_heart_green_apple_and_blue_heart_have_their_colours(style: Style, concept: str, channel: int) -> None:
    rgba = np.asarray(drawing(style, concept)).reshape(-1, 4)
    visible = rgba[rgba[:, 3] > 127, :3]
    assert visible.mean(axis=0).argmax() == channel


@EVERY_STYLE
def test_metadata_names_style_source_licence_attribution_and_changes(style: Style) -> None:
    metadata = {key.decode(): value.decode() for key, value in pack(style).schema.metadata.items()}
    assert set(column(style, "style")) == {metadata["style"]} == {style.name}
    assert metadata["source"] == str(style.package)
    assert metadata["licence"] == style.licence
    assert metadata["attribution"] == style.attribution
    assert "WebP" in metadata["changes"]
    assert metadata["captions_licence"] == "MIT AND Unicode-3.0"


def test_share_alike_drawings_lie_apart_beside_their_licence() -> None:
    share_alike = {style.pack_path for style in STYLES if "SA" in style.licence}
    assert share_alike == {"packs-cc-by-sa/openmoji.parquet"}
    assert "CC BY-SA 4.0" in (EMOJI_DIR / "packs-cc-by-sa" / "LICENSE.md").read_text(encoding="utf-8")


def test_one_concept_has_the_same_captions_in_every_pack() -> None:
    captions: dict[str, tuple[str, str]] = {}
    for style in STYLES:
        rows = zip(*(column(style, name) for name in ("concept", "label", "label_zh")), strict=True)
        for concept, label, label_zh in rows:
            assert captions.setdefault(concept, (label, label_zh)) == (label, label_zh)


def test_enough_concepts_are_common() -> None:
    concepts = {style.name: set(column(style, "concept")) for style in STYLES}
    assert len(set.intersection(*concepts.values())) >= 1_100
    del concepts["emojione"]  # its artwork stops at Emoji 3.0
    assert len(set.intersection(*concepts.values())) >= 1_500

"""Icon sets: names to captions, variants to one drawing, emoji to their concepts, search words of three shapes."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.emoji.captions import Concept
from benchmarks.icons.reading import emoji_names, emoji_of, read_set, read_tags, spoken
from benchmarks.icons.sets import SETS, IconSet
from tests.benchmarks.npm_packages import npm_archive

ICONS = Path(__file__).parents[2] / "benchmarks" / "icons"
SAMPLE, PACKS = ICONS / "sample.parquet", ICONS / "packs"
EMOJI = pq.read_table(ICONS.parent / "emoji/packs/noto.parquet", columns=["concept", "label"])


def concept(key: str, emoji: str, label: str) -> Concept:
    return Concept(key, emoji, label, ["word"], "zh", ["zh"], "group", "subgroup", 1.0)


def a_set(*, variants: tuple[str, ...] = (), is_emoji: bool = False) -> IconSet:
    return msgspec.structs.replace(SETS[0], variants=variants, is_emoji=is_emoji)


def icons(*names: str) -> dict[str, object]:
    return {"width": 24, "height": 24, "icons": {name: {"body": f'<path id="{name}"/>'} for name in names}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arrow-left", "arrow left"),
        ("brand-github", "github"),
        ("pet-not-allow-2", "pet not allow"),
        ("a--b-test", "a b test"),
        ("360", ""),
        ("x", ""),
        ("4k", ""),
    ],
)
def test_names_become_words(name: str, expected: str) -> None:
    assert spoken(name) == expected


def test_of_variants_the_plain_one_is_taken_else_the_first_listed(tmp_path: Path) -> None:
    found = icons("house-fill", "house", "car-bold", "car-fill", "fill")
    found["icons"]["tree"] = {"body": "<path/>", "hidden": True}  # type: ignore[index]
    drawn = read_set(a_set(variants=("fill", "bold")), npm_archive(tmp_path, {"icons.json": found}), {}, {})
    assert {each.label: each.svg.split(b'id="')[1].split(b'"')[0] for each in drawn} == {
        "car": b"car-fill",
        "fill": b"fill",
        "house": b"house",
    }


def test_an_emoji_s_name_is_its_concept_whatever_it_is_called(tmp_path: Path) -> None:
    # "fox-face" is what Unicode calls a fox.
    emoji = emoji_names([concept("1f98a", "\U0001f98a", "fox"), concept("23f0", "\u23f0", "alarm clock")])
    archive = npm_archive(tmp_path, {"icons.json": icons("fox", "alarmclock", "fox-face", "tractor")})
    drawn = {each.label: each for each in read_set(a_set(), archive, emoji, {"tractor": ["farm", "tractor"]})}
    assert {label: each.concept for label, each in drawn.items()} == {
        "fox": "1f98a",  # of two drawings of a concept one is kept
        "alarm clock": "23f0",
        "tractor": "tractor",
    }
    assert drawn["alarm clock"].keywords == ["word"]
    assert drawn["tractor"].keywords == ["farm"]
    only = read_set(a_set(is_emoji=True), archive, emoji, {})
    assert {each.label for each in only} == {"fox", "alarm clock"}


def test_an_emoji_is_found_under_a_numbered_name_and_with_its_words_in_another_order() -> None:
    emoji = emoji_names([concept("2b07", "\u2b07", "down arrow"), concept("1f46b", "\U0001f46b", "woman and man")])
    found = {name: emoji_of(name, emoji) for name in ("arrow-down", "down-arrow-1", "arrow-up", "man-and-woman-2")}
    assert {name: each and each.key for name, each in found.items()} == {
        "arrow-down": "2b07",
        "down-arrow-1": "2b07",
        "arrow-up": None,
        "man-and-woman-2": "1f46b",
    }


def test_search_words_are_read_in_all_three_shapes(tmp_path: Path) -> None:
    files = {
        "lucide.json": {"cat": ["animal", "pet"]},
        "tabler.json": {"cat": {"name": "cat", "tags": ["animal", None, 3]}},
        "mdi.json": [{"name": "cat", "tags": ["Animal"], "aliases": ["cat-face"]}],
    }
    archive = npm_archive(tmp_path, files)
    assert read_tags(archive, "package/lucide.json") == {"cat": ["animal", "pet"]}
    assert read_tags(archive, "package/tabler.json") == {"cat": ["animal", "3"]}
    assert read_tags(archive, "package/mdi.json") == {"cat": ["cat face", "animal"]}


def test_every_set_has_its_hash_and_licence_and_none_is_reserved() -> None:
    assert len({each.name for each in SETS}) == len(SETS)
    for each in SETS:
        assert len(each.package.sha256) == 64
        assert each.licence in {"Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "ISC", "MIT"}
        assert "fluent-emoji" not in each.package.name


def test_the_sample_has_two_thousand_icons_of_every_set() -> None:
    rows = pq.read_table(SAMPLE, columns=["style", "label", "keywords", "image"]).to_pylist()
    assert 1950 <= len(rows) <= 2000
    assert {row["style"] for row in rows} == {each.name for each in SETS if each.kind == "icons"}
    assert all(row["label"] and row["keywords"] and row["image"][8:12] == b"WEBP" for row in rows)


@pytest.mark.parametrize("path", sorted(PACKS.glob("*.parquet")), ids=lambda path: path.stem)
def test_a_committed_pack_is_its_set_s_with_licence_and_the_emoji_s_names(path: Path) -> None:
    (icon_set,) = (each for each in SETS if each.name == path.stem)
    table = pq.read_table(path)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (metadata["style"], metadata["source"]) == (icon_set.name, str(icon_set.package))
    assert (metadata["source_sha256"], metadata["licence"]) == (icon_set.package.sha256, icon_set.licence)
    assert metadata["attribution"] == icon_set.attribution
    labels = dict(zip(*(EMOJI[name].to_pylist() for name in ("concept", "label")), strict=True))
    rows = table.select(["concept", "label", "keywords", "image"]).to_pylist()
    named = [row for row in rows if row["concept"] in labels]
    # Else the same thing would stand on two sides of a split.
    assert len(named) > {"flat-color-icons": 20, "streamline-ultimate-color": 30}.get(icon_set.name, 300)
    assert all(row["label"] == labels[row["concept"]] for row in named)
    words = {" ".join(sorted(re.findall(r"[a-z0-9]+", label.lower()))) for label in labels.values()}
    others = (row["label"].lower() for row in rows if row["concept"] == row["label"])
    assert not {each for each in others if " ".join(sorted(each.split())) in words}
    for row in rows:
        with Image.open(BytesIO(row["image"])) as image:
            assert (image.format, image.size) == ("WEBP", (72, 72)), row["label"]


def test_the_packs_are_named_in_the_notice() -> None:
    notice = (PACKS.parents[2] / "NOTICE").read_text(encoding="utf-8")
    paths = sorted(PACKS.glob("*.parquet"))
    assert len(paths) == 5
    assert all(f"benchmarks/icons/packs/{path.name}:" in notice for path in paths)

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from mmalign.config import DataConfig
from mmalign.data import EmptySourceError, Origin, Pair, Splits
from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.errors import TrainingError
from mmalign.run.pairs import augment_pair, check_enough, decode_pair, identify_pairs, load_sources, merged_splits
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec


@pytest.fixture
def copied(pairs_csv: Path, tmp_path: Path) -> Path:
    """A copy of the pairs that the test may damage."""
    for path in pairs_csv.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "pairs.csv"


def data_config(*paths: Path, held_out: tuple[Path, ...] = (), **settings: object) -> DataConfig:
    def sources(paths: tuple[Path, ...]) -> list[dict[str, object]]:
        return [{"path": str(path), "concept_column": "concept"} for path in paths]

    tables = {
        "sources": sources(paths),
        "held_out": sources(held_out),
        "split": {"val": 0.25, "test": 0.25, "seed": 59},
    }
    return msgspec.convert(tables | settings, DataConfig)


def test_no_concept_is_on_two_sides_of_any_source(pairs_csv: Path, copied: Path) -> None:
    sources = load_sources(data_config(pairs_csv, held_out=(copied,)))
    trained = {pair.concept for source in sources for pair in source.splits.train}
    tested = {pair.concept for source in sources for pair in source.splits.test}
    assert len(trained) == 6
    assert len(tested) == 3
    assert not trained & tested


def test_held_out_sources_are_read_and_lend_nothing_to_training(pairs_csv: Path, copied: Path) -> None:
    config = data_config(pairs_csv, held_out=(copied,))
    assert [source.is_held_out for source in load_sources(config)] == [False, True]
    assert {pair.origin.source_path for pair in merged_splits(load_sources(config)).train} == {pairs_csv}


def test_what_is_trained_on_alone_is_counted_and_never_evaluated(
    pairs_csv: Path, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = copied.read_text().splitlines()
    at = rows[0].split(",").index("concept")
    renamed = [row.split(",") for row in rows[1:]]
    taken = {row[at] for row in renamed[::2]}  # these concepts stay the same, the others are known by no other source
    for number, row in enumerate(renamed):
        row[0] = f"{number}-{row[0]}"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(copied.parent / row[0])
        row[at] = row[at] if row[at] in taken else f"new {row[at]}"
    copied.write_text("\n".join([rows[0], *(",".join(row) for row in renamed)]))
    config = data_config(pairs_csv)
    alone = msgspec.structs.replace(config.sources[0], path=str(copied), split="train")
    with caplog.at_level(logging.INFO):
        own, added = load_sources(msgspec.structs.replace(config, sources=(*config.sources, alone)))
    assert (own.is_evaluated, added.is_evaluated, added.is_held_out) == (True, False, False)
    assert own.splits == load_sources(config)[0].splits
    evaluated = {pair.concept for pair in (*own.splits.val, *own.splits.test)}
    num_left = sum(row[at] in evaluated for row in renamed)
    assert 0 < num_left < len(renamed)
    assert (len(added.splits.train), added.splits.val, added.splits.test) == (len(renamed) - num_left, (), ())
    assert f"is trained on alone: {num_left} of {len(renamed)} pairs are left out" in caplog.text
    assert set(added.splits.train) < set(merged_splits([own, added]).train)


def test_sources_are_named_by_stem_and_by_path_where_stems_are_alike(pairs_csv: Path, copied: Path) -> None:
    assert [source.name for source in load_sources(data_config(pairs_csv))] == ["pairs"]
    assert [source.name for source in load_sources(data_config(pairs_csv, copied))] == [str(pairs_csv), str(copied)]


@pytest.mark.parametrize(("val", "side"), [(0.0, "val"), (0.99, "train")])
def test_too_few_pairs_are_refused(pairs_csv: Path, val: float, side: str) -> None:
    with pytest.raises(TrainingError, match=rf"the {side} split has \d pairs, expected at least 2.*data\.split"):
        check_enough(merged_splits(load_sources(data_config(pairs_csv, split={"val": val, "test": 0.0, "seed": 59}))))


def test_damaged_image_is_named_by_where_it_was_listed(copied: Path) -> None:
    pair = merged_splits(load_sources(data_config(copied))).train[0]
    assert isinstance(pair.image, Path)
    pair.image.write_bytes(pair.image.read_bytes()[:60])
    with pytest.raises(ItemError, match=rf"item 4 \(.*pairs\.csv, line {pair.origin.line}: .*png\), .*replace it"):
        decode_pair(pair, ImageSpec(), index=4)


@pytest.mark.parametrize("orientation", [1, 6])
def test_views_of_a_jpeg_decoded_for_its_crop_are_those_of_the_whole_one(tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    rows, columns = np.mgrid[:320, :480] / 480
    photo = np.stack([255 * rows, 255 * columns, 0 * rows], axis=2).astype(np.uint8)
    Image.fromarray(photo).save(path, quality=95, exif=exif)
    pair = Pair(path, ("a photo",), "photo", Origin(path))
    plain = AugmentConfig(crop_scale=0.2, color_jitter=0.0, grayscale=0.0, blur=0.0)
    # In full, at the crop's scale, at that of the whole picture.
    full, reduced, whole = (
        ImageAugment(msgspec.structs.replace(plain, jpeg_oversampling=k), ImageSpec(size=16)) for k in (0, 2, None)
    )
    for seed in range(6):
        expected, found = (augment_pair(pair, augment, 0, seed) for augment in (full, reduced))
        assert 0 < (found - expected).abs().mean() < 0.06
        assert torch.equal(augment_pair(pair, whole, 0, seed), whole(decode_pair(pair, whole.spec, 0), seed))


def test_damaged_images_are_skipped_and_counted_when_asked(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    (copied.parent / "red-bar-0.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        (source,) = load_sources(data_config(copied, on_error="skip"))
    assert len(source.splits.train + source.splits.val + source.splits.test) == 23
    assert "skipped 1 of 24 pairs; the first: item" in caplog.text


def test_pairs_whose_captions_are_too_long_are_skipped_as_those_of_streams_are(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = TextSpec(context_length=8, max_characters=40)
    lines = copied.read_text().splitlines()
    copied.write_text("\n".join([*lines[:-1], lines[-1].replace(",", f",{'x' * 41} ", 1)]))
    with caplog.at_level(logging.WARNING):
        (source,) = load_sources(data_config(copied, on_error="skip"), text=text)
    assert len(source.splits.train + source.splits.val + source.splits.test) == 23
    assert "skipped 1 of 24 pairs; the first: item" in caplog.text
    assert "56 characters are more than the 40" in caplog.text


def test_a_source_of_damaged_images_alone_is_refused(copied: Path) -> None:
    for path in copied.parent.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(EmptySourceError, match="none of 24 pairs can be trained on"):
        load_sources(data_config(copied, on_error="skip"))


def test_id_of_pairs_follows_captions_concepts_and_order() -> None:
    def of(*pairs: tuple[str, str]) -> str:
        train = tuple(Pair(b"", (caption,), concept, Origin(Path("a.csv"), line=2)) for caption, concept in pairs)
        return identify_pairs(Splits(train, (), ()))

    assert of(("a", "b")) == of(("a", "b"))
    assert (
        len({of(("a", "b")), of(("b", "a")), of(("a", "c")), of(("a", "b"), ("c", "d")), of(("c", "d"), ("a", "b"))})
        == 5
    )

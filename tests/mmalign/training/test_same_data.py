"""The same images and captions in every form that data sets come in: the same candidates, sides and figures."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmalign.config import Config, DataConfig
from mmalign.evaluation import evaluate
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.metrics import read_metrics

MakeConfig = Callable[..., Config]
Sources = list[dict[str, object]]
Form = Callable[[Path, dict[Path, list[str]]], Sources]

NUM_CAPTIONS = 5


@pytest.fixture(scope="session")
def captions_of(pairs_csv: Path) -> dict[Path, list[str]]:
    """Two dozen images with five captions each, as Flickr30k and COCO have them; some captions are of two images."""
    with pairs_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for at, row in enumerate(rows):
        words = [
            row["caption"],
            row["other"],
            f"a {row['color']} picture",
            f"picture {at}",
            f"the {row['concept']} {at}",
        ]
        found[pairs_csv.parent / row["image"]] = words
    return found


def rows_a_caption(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    return [_table(folder / "rows.csv", captions_of, range(NUM_CAPTIONS))]


def shuffled_rows_with_a_row_twice(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    _table(folder / "rows.csv", captions_of, range(NUM_CAPTIONS))
    header, *rows = (folder / "rows.csv").read_text().splitlines()
    backwards = [
        row for start in range(len(rows) - NUM_CAPTIONS, -1, -NUM_CAPTIONS) for row in rows[start:][:NUM_CAPTIONS]
    ]
    (folder / "rows.csv").write_text("\n".join([header, *backwards, rows[0]]))
    return [{"path": str(folder / "rows.csv")}]


def lists(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    lines = [json.dumps({"image": str(path), "caption": captions}) for path, captions in captions_of.items()]
    (folder / "lists.jsonl").write_text("\n".join(lines))
    return [{"path": str(folder / "lists.jsonl")}]


def columns(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    names = [f"caption_{at}" for at in range(NUM_CAPTIONS)]
    with (folder / "columns.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", *names], *([path, *captions] for path, captions in captions_of.items())])
    return [{"path": str(folder / "columns.csv"), "caption_columns": names}]


def coco(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    images = [{"id": at, "file_name": path.name} for at, path in enumerate(captions_of)]
    notes = [{"image_id": at, "caption": text} for at, texts in enumerate(captions_of.values()) for text in texts]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return [{"path": str(folder / "captions.json"), "image_root": str(next(iter(captions_of)).parent)}]


def image_folder(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    for path, captions in captions_of.items():
        shutil.copy(path, folder / path.name)
        (folder / path.name).with_suffix(".txt").write_text("\n".join(captions))
    return [{"path": str(folder)}]


def renamed_and_moved(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    for at, (path, captions) in enumerate(captions_of.items()):
        copy = folder / "elsewhere" / str(at % 3) / f"{97 * at % 89}.PNG"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        copy.with_suffix(".txt").write_text("\n".join(captions))
    return [{"path": str(folder / "elsewhere")}]


def parquet_with_images(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in captions_of]
    pq.write_table(pa.table({"image": images, "caption": list(captions_of.values())}), folder / "a.parquet")
    return [{"path": str(folder / "a.parquet")}]


def shards(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for at, (path, captions) in list(enumerate(captions_of.items()))[shard::2]:
                for name, data in ((".png", path.read_bytes()), (".json", json.dumps({"caption": captions}).encode())):
                    info = tarfile.TarInfo(f"{at:04}{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return [{"path": str(folder)}]


def two_tables_of_one_pattern(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    _table(folder / "a.csv", captions_of, range(2))
    _table(folder / "b.csv", captions_of, range(2, NUM_CAPTIONS))
    return [{"path": str(folder / "*.csv")}]


def two_sources(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    tables = (_table(folder / "a.csv", captions_of, range(2)), _table(folder / "b.csv", captions_of, range(2, 5)))
    return list(tables)


def a_copy_as_a_second_source(folder: Path, captions_of: dict[Path, list[str]]) -> Sources:
    (folder / "copy").mkdir()
    return [*lists(folder, captions_of), *renamed_and_moved(folder / "copy", captions_of)]


def _table(path: Path, captions_of: dict[Path, list[str]], which: range) -> dict[str, object]:
    rows = [(image, captions[at]) for image, captions in captions_of.items() for at in which]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return {"path": str(path)}


ONE_SOURCE: tuple[Form, ...] = (
    rows_a_caption,
    shuffled_rows_with_a_row_twice,
    lists,
    columns,
    coco,
    image_folder,
    renamed_and_moved,
    parquet_with_images,
    shards,
    two_tables_of_one_pattern,
)
FORMS: tuple[Form, ...] = (*ONE_SOURCE, two_sources, a_copy_as_a_second_source)

Sides = list[list[tuple[str, str, tuple[str, ...]]]]


def data_tables(sources: Sources) -> dict[str, object]:
    return {"data.sources": sources, "data.split": {"val": 0.25, "test": 0.25, "seed": 3}}


def sides_of(config: DataConfig) -> Sides:
    splits = merged_splits(load_sources(config))
    return [
        [(pair.image_id, pair.concept, pair.captions) for pair in side]
        for side in (splits.train, splits.val, splits.test)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_candidates_and_sides_are_equal(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]], form: Form
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "form").mkdir()
    expected = make_config(data_tables(lists(tmp_path / "lists", captions_of))).data
    found = make_config(data_tables(form(tmp_path / "form", captions_of))).data
    assert sides_of(found) == sides_of(expected)
    assert [len(side) for side in sides_of(found)] == [13, 7, 4]
    sets = [build_retrieval_set(merged_splits(load_sources(config)).val, "all") for config in (found, expected)]
    assert [pair.image_id for pair in sets[0].pairs] == [pair.image_id for pair in sets[1].pairs]
    assert sets[0].texts == sets[1].texts
    assert all(len(items.relevant.right(row)) == NUM_CAPTIONS for items in sets for row in range(7))


def test_training_and_evaluation_give_equal_figures(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]]
) -> None:
    frozen = {"image_tower.frozen": True, "text_tower.frozen": True}
    metrics, scores = [], []
    for form in FORMS:
        folder = tmp_path / form.__name__
        (folder / "data").mkdir(parents=True)
        train(make_config(frozen | data_tables(form(folder / "data", captions_of))), folder / "run")
        metrics.append(read_metrics(folder / "run" / "metrics.csv"))
        if form in ONE_SOURCE:
            scores += [msgspec.structs.replace(found, source="") for found in evaluate(folder / "run").sources]
    assert all(found == metrics[0] for found in metrics)
    assert all(found == scores[0] for found in scores)
    assert scores[0].num_images == 4
    assert scores[0].num_trained_on == 0
    # Five of the captions are right for an image, and an image for all of its captions: none is asked for twice.
    assert scores[0].chance.image_to_text.at_1 == pytest.approx(NUM_CAPTIONS / scores[0].num_captions)


def test_one_name_in_two_folders_is_two_concepts(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]]
) -> None:
    images = list(captions_of.items())
    for folder, chosen in (("cats", images[:12]), ("cars", images[12:])):
        (tmp_path / folder).mkdir()
        for at, (path, captions) in enumerate(chosen):
            shutil.copy(path, tmp_path / folder / f"{at:04}.png")
            (tmp_path / folder / f"{at:04}.txt").write_text(captions[0])
    config = make_config(data_tables([{"path": str(tmp_path / "cats")}, {"path": str(tmp_path / "cars")}])).data
    splits = merged_splits(load_sources(config))
    assert len({pair.concept for side in (splits.train, splits.val, splits.test) for pair in side}) == 24


def test_a_picture_with_two_names_is_on_one_side_of_all_sources(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    paths = list(captions_of)
    for name, own in (("first", "f"), ("second", "s")):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("image", "caption", "id"), *((path, own, f"{own}{path.stem}") for path in paths)]
            )
    sources = [{"path": str(tmp_path / f"{name}.csv"), "concept_column": "id"} for name in ("first", "second")]
    with caplog.at_level(logging.WARNING):
        loaded = load_sources(make_config(data_tables(sources)).data)
    train, val, test = (
        {pair.image_id for source in loaded for pair in getattr(source.splits, side)}
        for side in ("train", "val", "test")
    )
    assert not (train & val or train & test or val & test)
    assert "48 of 48 concepts share images with others, so they are on one side; the most together are 2" in caplog.text


def test_numbers_of_rows_as_concepts_of_two_sources_are_warned_of(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    paths = list(captions_of)
    for name, own in (("first", paths[:12]), ("second", paths[12:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "caption", "id"), *((path, "x", at) for at, path in enumerate(own))])
    sources = [{"path": str(tmp_path / f"{name}.csv"), "concept_column": "id"} for name in ("first", "second")]
    with caplog.at_level(logging.WARNING):
        load_sources(make_config(data_tables(sources)).data)
    assert "second.csv have 12 concepts in common, all of them whole numbers" in caplog.text


def test_images_that_were_trained_on_are_counted_and_warned_of(
    make_config: MakeConfig, tmp_path: Path, captions_of: dict[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    frozen = {"image_tower.frozen": True, "text_tower.frozen": True}
    train(make_config(frozen | data_tables(lists(tmp_path, captions_of))), tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(
        config.read_text().replace("seed = 3", "seed = 4")
    )  # another split, of which the run knows nothing
    with caplog.at_level(logging.WARNING):
        (scores,) = evaluate(tmp_path / "run").sources
    assert scores.num_trained_on
    assert (
        f"{scores.num_trained_on} of {scores.num_images} images were trained on, so the figures are too" in caplog.text
    )
    (tmp_path / "run" / "trained_images.txt").unlink()
    with caplog.at_level(logging.WARNING):
        (scores,) = evaluate(tmp_path / "run").sources
    assert scores.num_trained_on is None
    assert "the model does not say which images it was trained on" in caplog.text

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch.nn import functional

from mmalign.checkpoints.checkpoint import Progress, save_best
from mmalign.config import Config
from mmalign.data import DataSource, Splits
from mmalign.errors import CheckpointError, ConfigError
from mmalign.evaluation import evaluate, scoring
from mmalign.features import ModelFeatures
from mmalign.figures.linear_map import LinearMap
from mmalign.figures.retrieval_set import Captions, build_retrieval_set
from mmalign.figures.scores import Evaluation
from mmalign.run import create_run, load_run, read_trained_images
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from tests.mmalign.run_features import features_of

MakeConfig = Callable[..., Config]
FROZEN: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True}


@pytest.fixture
def held_out(pairs_csv: Path, tmp_path: Path) -> dict[str, object]:
    """The same pairs under another name, without classes: a source that is only evaluated."""
    with pairs_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "other.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "caption", "concept"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return {"path": str(path), "concept_column": "concept", "image_root": str(pairs_csv.parent)}


def test_each_source_is_scored_by_model_map_and_chance(
    make_config: MakeConfig, tmp_path: Path, held_out: dict[str, object]
) -> None:
    train(make_config({**FROZEN, "data.held_out": [held_out]}), tmp_path / "run")
    evaluation = evaluate(tmp_path / "run")
    seen, unseen = evaluation.sources
    assert (seen.source, seen.is_held_out, unseen.source, unseen.is_held_out) == ("pairs", False, "other", True)
    # Three test concepts, two drawings of each; two captions a concept in one source, one in the other.
    assert (seen.num_images, seen.num_captions, unseen.num_images, unseen.num_captions) == (6, 6, 6, 3)
    # Of six captions two are right for an image, and of six images two for a caption.
    assert seen.chance.image_to_text.at_1 == pytest.approx(2 / 6)
    assert seen.chance.text_to_image.at_1 == pytest.approx(2 / 6)
    assert seen.num_classes == 3
    assert seen.chance.zero_shot_accuracy == pytest.approx(1 / 3)
    assert unseen.num_classes == 0
    assert unseen.model.zero_shot_accuracy is None


def test_dims_that_a_model_does_not_have_are_refused_at_the_start_and_a_run_that_names_them_is_read(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config({**FROZEN, "evaluate.dims": [4, 4096]})
    with pytest.raises(ConfigError, match="the first 4096 components was asked for"):
        train(config, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    train(make_config({**FROZEN, "evaluate.dims": [4]}), tmp_path / "run")
    file = tmp_path / "run/config.toml"  # as a version wrote it that did not look
    file.write_text(re.sub(r"dims = \[\s*4,?\s*\]", "dims = [4, 4096]", file.read_text()))
    assert "4096" in file.read_text()
    (source,) = evaluate(tmp_path / "run").sources
    assert source.diagnosis is not None
    assert [each.dim for each in source.diagnosis.prefixes] == [4]


def test_figures_are_written_as_json(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path)
    evaluation = evaluate(tmp_path, split="val", checkpoint="last")
    assert msgspec.json.decode((tmp_path / "evaluation.json").read_bytes(), type=Evaluation) == evaluation
    assert (evaluation.split, evaluation.checkpoint, evaluation.captions) == ("val", "last", "all")


def test_validation_score_of_training_is_that_of_evaluation(make_config: MakeConfig, tmp_path: Path) -> None:
    result = train(make_config({"text_tower.frozen": True}), tmp_path)
    (scores,) = evaluate(tmp_path, split="val").sources
    score = (scores.model.image_to_text.mean() + scores.model.text_to_image.mean()) / 2
    assert score == pytest.approx(result.best_score)


def test_first_captions_alone_when_asked(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config({**FROZEN, "evaluate.captions": "first"}), tmp_path)
    (scores,) = evaluate(tmp_path).sources
    assert scores.num_captions == 3


def test_model_is_right_where_it_was_made_right(make_config: MakeConfig, tmp_path: Path) -> None:
    """Projections that are solved for, not trained: each test image's vector is the mean of its captions'."""
    train(make_config({**FROZEN, "model.embed_dim": 32}), tmp_path)
    run = load_run(tmp_path)
    items = build_retrieval_set(merged_splits(load_sources(run.config.data)).test, "all")
    features = features_of(run, is_training=False)
    images, texts = features.images.of(items.pairs, "test"), features.texts.of(items.texts, "test")
    right = [items.relevant.right(row) for row in range(len(items.pairs))]
    targets = torch.stack([functional.normalize(texts, dim=-1)[row].mean(dim=0) for row in right])
    run.model.image_projection.load_state_dict({"0.weight": (torch.linalg.pinv(images) @ targets).T})
    run.model.text_projection.load_state_dict({"0.weight": torch.eye(32)})
    save_best(tmp_path / "best.safetensors", run.model, Progress())
    (scores,) = evaluate(tmp_path).sources
    assert scores.model.image_to_text.at_1 == scores.model.text_to_image.at_1 == 1.0
    assert scores.model.image_to_text.median_rank == 1


def test_linear_map_starts_from_the_pretrained_towers(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config({"train.epochs": 5}), tmp_path / "learned")
    train(make_config(FROZEN), tmp_path / "frozen")
    learned, frozen = (evaluate(tmp_path / name).sources[0] for name in ("learned", "frozen"))
    assert learned.linear_map == frozen.linear_map
    assert learned.model != frozen.model


def test_the_linear_map_sees_no_near_synonyms_either(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_config(FROZEN)
    texts = features_of(create_run(whole, tmp_path / "whole"), is_training=False).texts
    splits = merged_splits(load_sources(whole.data))
    trained, evaluated = (
        functional.normalize(texts.of([pair.captions[0] for pair in side], "captions"), dim=-1)
        for side in (splits.train, (*splits.val, *splits.test))
    )
    nearest = (trained @ evaluated.T).amax(dim=1)  # the limit leaves out the nearest half, and no tie at it
    limit = float(nearest.sort().values[len(nearest) // 2])
    split = {**msgspec.to_builtins(whole.data.split), "max_caption_similarity": limit}
    train(make_config({**FROZEN, "data.split": split}), tmp_path / "run")
    fitted: list[int] = []
    fit = scoring._fit_map

    def counted(splits: Splits, features: ModelFeatures, captions: Captions) -> LinearMap:
        fitted.append(len(splits.train))
        return fit(splits, features, captions)

    monkeypatch.setattr(scoring, "_fit_map", counted)
    evaluate(tmp_path / "run")
    assert fitted == [len(read_trained_images(load_run(tmp_path / "run").folder) or ())]
    assert fitted[0] < len(splits.train)


def test_a_source_that_is_trained_on_alone_is_not_evaluated(
    make_config: MakeConfig, tmp_path: Path, held_out: dict[str, object]
) -> None:
    config = make_config(FROZEN)
    alone = msgspec.convert({**held_out, "split": "train"}, DataSource)
    data = msgspec.structs.replace(config.data, sources=(alone, *config.data.sources))
    train(msgspec.structs.replace(config, data=data), tmp_path / "run")
    assert [source.source for source in evaluate(tmp_path / "run").sources] == ["pairs"]


def test_split_without_pairs_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config({**FROZEN, "data.split": {"val": 0.25, "test": 0.0, "seed": 59}}), tmp_path)
    with pytest.raises(ConfigError, match=r"source pairs has no pairs in the test split\. Raise data\.split\.test"):
        evaluate(tmp_path)
    assert not (tmp_path / "evaluation.json").exists()


def test_run_without_a_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run: it has no config\.toml"):
        evaluate(tmp_path)

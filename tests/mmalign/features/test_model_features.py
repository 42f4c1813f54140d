from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from mmalign.config import Config
from mmalign.data import Origin, Pair
from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.dual_model import ImageModelTower, TextModelTower
from mmalign.features import ImageFeatures, TextFeatures
from mmalign.model import DualEncoder
from mmalign.run import Run, create_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.signature import image_inputs, text_inputs
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec
from tests.mmalign.run_features import features_of
from tests.tolerances import FOLDED, ONE_LEVEL, PADDING_INVARIANCE

Start = Callable[[dict[str, object]], Run]
SPEC = ImageSpec(size=8)
CPU = torch.device("cpu")


@pytest.fixture
def pairs(pairs_csv: Path) -> list[Pair]:
    paths = sorted(pairs_csv.parent.glob("*.png"))
    return [Pair(path, (path.stem,), path.stem, Origin(pairs_csv)) for path in paths]


@pytest.fixture
def make_images() -> Callable[[float], ImageFeatures]:
    """Return a function that makes features of a tower that is the mean of each channel, times a factor."""

    def make(factor: float) -> ImageFeatures:
        layer = nn.Linear(3, 3, bias=False)
        nn.init.eye_(layer.weight).data.mul_(factor)
        backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), layer)
        tower = ImageModelTower(
            backbone=backbone.train(),
            feature_dim=3,
            embed_dim=3,
            inputs=image_inputs(SPEC),
            architecture="means",
            definition="",
            spec=SPEC,
        )
        return ImageFeatures(tower, CPU)

    return make


@pytest.fixture
def make_texts(make_model: Callable[..., DualEncoder], text_encoder_dir: Path) -> Callable[..., TextFeatures]:
    """Return a function that makes features of a tiny tower with the weights of a seed."""

    def make(seed: int, token: str | None = None) -> TextFeatures:
        tokenizer, spec = Tokenizer.from_file(str(text_encoder_dir / "tokenizer.json")), TextSpec(context_length=8)
        tokenizer.add_tokens([] if token is None else [token])
        tower = TextModelTower(
            backbone=make_model(seed=seed).text_tower,
            feature_dim=6,
            embed_dim=6,
            inputs=text_inputs(spec),
            architecture="bert",
            definition="mean",
            spec=spec,
            tokenizer=tokenizer,
        )
        return TextFeatures(tower, CPU)

    return make


def test_image_features_follow_the_order_of_pairs_and_evaluate(
    make_images: Callable[[float], ImageFeatures], pairs: list[Pair]
) -> None:
    images = make_images(1.0)
    features = images.compute(pairs, "test")
    assert features.shape == (24, 3)
    assert torch.equal(images.compute(pairs[::-1], "test"), features.flip(0))
    assert torch.equal(images.compute(pairs, "test"), features)  # no dropout
    pixels = np.asarray(Image.open(str(pairs[0].image)).resize((8, 8), Image.Resampling.BILINEAR)) / 255
    expected = ((pixels - np.array(SPEC.mean)) / np.array(SPEC.std)).mean(axis=(0, 1))
    assert np.allclose(features[0], expected, atol=ONE_LEVEL.bound)


def test_views_differ_and_come_back_by_their_number(
    make_images: Callable[[float], ImageFeatures], pairs: list[Pair]
) -> None:
    images, augment = make_images(1.0), ImageAugment(AugmentConfig(), SPEC)
    first, again, second = (images.compute_view(pairs, augment, view, "test") for view in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_key_of_images_follows_tower_and_images(
    make_images: Callable[[float], ImageFeatures], pairs: list[Pair], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    in_file, in_memory = (Pair(image, ("a",), "a", pairs[0].origin) for image in (tmp_path / "a.png", b"one"))
    keys = [make_images(1.0).key([in_file], "clean")]
    keys += [make_images(1.0).key([in_file], "view 1"), make_images(2.0).key([in_file], "clean")]
    keys += [make_images(1.0).key([in_memory], "clean"), make_images(1.0).key([in_file, in_file], "clean")]
    described = make_images(1.0)._tower
    for change in ({"description": {"architecture": "vit_quickgelu"}}, {"definition": "quick_gelu"}):
        keys.append(ImageFeatures(msgspec.structs.replace(described, **change), CPU).key([in_file], "clean"))
    assert make_images(1.0).key([in_file], "clean") == keys[0]
    (tmp_path / "a.png").write_bytes(b"other")
    keys.append(make_images(1.0).key([in_file], "clean"))
    assert len({tuple(key) for key in keys}) == len(keys)


def test_an_image_that_is_gone_is_named_when_its_features_are_computed(
    make_images: Callable[[float], ImageFeatures], tmp_path: Path
) -> None:
    gone = Pair(tmp_path / "gone.png", ("a",), "a", Origin(tmp_path / "pairs.csv", line=7))
    assert make_images(1.0).key([gone], "clean")
    with pytest.raises(ItemError, match=r"pairs\.csv, line 7: .*gone\.png\), open: there is no such file"):
        make_images(1.0).compute([gone], "test")


def test_text_features_do_not_depend_on_order_or_company(make_texts: Callable[..., TextFeatures]) -> None:
    texts = ["a", "the picture of a", "the", "a picture", "the picture of the picture of a picture"]
    features = make_texts(0).compute(texts, "test")
    assert features.shape == (5, 6)
    for text, expected in zip(texts, features, strict=True):
        alone = make_texts(0).compute([text], "test")[0]
        assert (alone - expected).abs().max() <= PADDING_INVARIANCE.bound


def test_a_text_that_comes_again_is_computed_once(
    make_texts: Callable[..., TextFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, seen = make_texts(0), []
    batches = texts.batches
    monkeypatch.setattr(texts, "batches", lambda some, name: seen.extend(some) or batches(some, name))
    features = texts.compute(["the", "a picture", "the", "a", "the"], "test")
    assert sorted(seen) == ["a", "a picture", "the"]
    assert torch.equal(features[0], features[2])
    assert torch.equal(features[0], features[4])
    assert torch.equal(features, texts.compute(["the", "a picture", "a"], "test")[[0, 1, 0, 2, 0]])
    assert texts.compute([], "test").shape == (0, 6)


def test_key_of_texts_follows_tower_tokenizer_and_texts(make_texts: Callable[..., TextFeatures]) -> None:
    keys = [make_texts(0).key(["a", "b"]), make_texts(1).key(["a", "b"])]
    keys += [make_texts(0).key(["ab"]), make_texts(0, token="new").key(["a", "b"])]
    described = make_texts(0)._tower
    for change in ({"description": {"num_attention_heads": 3}}, {"definition": "max"}):
        keys.append(TextFeatures(msgspec.structs.replace(described, **change), CPU).key(["a", "b"]))
    assert make_texts(0).key(["a", "b"]) == keys[0]
    assert len({tuple(key) for key in keys}) == len(keys)


@pytest.fixture
def start(make_config: Callable[..., Config], tmp_path: Path) -> Start:
    """Return a function that starts a run with some settings."""
    return lambda settings: create_run(make_config(settings), tmp_path / "run")


def num_cached(run: Run) -> int:
    return len(list(Path(run.config.train.cache_dir).glob("*.npy")))


def test_frozen_towers_are_kept_and_learning_ones_are_not(start: Start) -> None:
    run = start({"image_tower.frozen": True})
    features, pairs = features_of(run, is_training=True), merged_splits(load_sources(run.config.data)).val
    features.texts.of(["a red square"], "test")
    assert num_cached(run) == 0
    features.images.of(pairs, "test")
    features.images.of(pairs, "again")
    assert num_cached(run) == 1


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_frozen_tower_without_its_batch_norm_gives_its_own_features(start: Start, num_threads: int) -> None:
    run = start({"image_tower.frozen": True})
    pairs = merged_splits(load_sources(run.config.data)).train
    frozen = features_of(run, is_training=True).images
    expected = ImageFeatures(dual_model(run).image, CPU).compute(pairs, "as it stands")
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = frozen.compute(pairs, "folded")
    finally:
        torch.set_num_threads(before)
    assert frozen._folded is not None
    assert (found - expected).abs().max() <= FOLDED.bound * expected.abs().max()


def test_a_tower_that_learns_keeps_its_batch_norm(start: Start) -> None:
    assert features_of(start({}), is_training=True).images._folded is None


def test_in_evaluation_every_tower_is_kept(start: Start) -> None:
    run = start({})
    features_of(run, is_training=False).texts.of(["a red square"], "test")
    assert num_cached(run) == 1


def test_a_tower_that_changed_is_computed_again(start: Start) -> None:
    run = start({"text_tower.frozen": True})
    before = features_of(run, is_training=True).texts.of(["a red square"], "test")
    with torch.no_grad():
        next(run.model.text_tower.parameters()).mul_(2)
    after = features_of(run, is_training=True).texts.of(["a red square"], "test")
    assert num_cached(run) == 2
    assert not torch.equal(before, after)


def test_views_are_kept_by_number_and_settings(start: Start) -> None:
    run = start({"image_tower.frozen": True})
    features, pairs = features_of(run, is_training=True), merged_splits(load_sources(run.config.data)).val
    augment = ImageAugment(run.config.augment, run.config.image)
    first, second = (features.images.of_view(pairs, augment, view) for view in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(features.images.of_view(pairs, augment, 1), first)
    assert num_cached(run) == 2

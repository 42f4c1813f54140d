"""A model from nowhere near a training run is exported, proven, sealed and served as any other."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from mmalign.config import EvaluateConfig
from mmalign.data import Origin, Pair, Splits
from mmalign.dual_model import DualModel, Similarity
from mmalign.errors import ModelError
from mmalign.evaluation.scoring import evaluate_model
from mmalign.features import ModelFeatures
from mmalign.figures.retrieval import recall_both_ways
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.run.pairs import SourcePairs
from mmalign.signature import BATCH, ModuleInput
from mmalign_export.errors import FormatLimitError
from mmalign_export.to_bundle import export_model
from mmalign_export.to_compiled import compile_tower
from mmalign_export.to_onnx import export_onnx
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.spec import TextTower
from mmalign_runtime.verify import verify_bundle
from tests.export.conftest import small_golden_files
from tests.export.own_modules import DIM, IMAGE, own_model
from tests.tolerances import ONNX_TOWERS

TEXTS = ["a dog", "the quick brown fox jumps over the lazy dog on the beach", "seller", "best zebra"]


@pytest.fixture(scope="module")
def own() -> DualModel:
    return own_model()


@pytest.fixture(scope="module")
def own_bundle(own: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "bundle"
    export_model(own, out, image_files=small_golden_files())
    return out


def test_the_bundle_of_own_modules_is_proven_and_sealed(own_bundle: Path) -> None:
    report = verify_bundle(own_bundle, provider="cpu")
    assert report.passed, report.cases
    spec = open_bundle(own_bundle).spec
    assert (spec.embed_dim, spec.similarity.scale, spec.provenance.source.name) == (DIM, 25.0, "two small modules")
    assert spec.provenance.weights_licence == "CC0-1.0"
    assert not (own_bundle / "config.json").exists()  # transformers has no configuration of these towers


def test_its_texts_are_the_sums_of_their_words(own: DualModel, own_bundle: Path) -> None:
    words = own.text.backbone.get_parameter("words.weight").detach()
    ids = [own.text.bound_tokenizer.encode([text]).input_ids[0] for text in TEXTS]
    expected = torch.stack([functional.normalize(words[torch.from_numpy(row)].sum(dim=0), dim=0) for row in ids])
    found = Embedder.load(own_bundle, provider="cpu").encode_text(TEXTS)
    np.testing.assert_allclose(found, expected.numpy(), atol=ONNX_TOWERS.bound)


def test_its_images_are_those_of_the_modules_on_pillow_s_pixels(own: DualModel, own_bundle: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (112, 56, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(noise), np.float32)[32:80, 4:52] / 255  # cropped, not resized
    values = (pixels - np.array(IMAGE.mean, np.float32)) / np.array(IMAGE.std, np.float32)
    with torch.inference_mode():
        features = own.image.backbone(torch.from_numpy(values.transpose(2, 0, 1)[None]))
    expected = functional.normalize(features, dim=-1).numpy()
    found = Embedder.load(own_bundle, provider="cpu").encode_image([noise])
    np.testing.assert_allclose(found, expected, atol=ONNX_TOWERS.bound)


def test_what_the_format_has_no_place_for_is_named(tmp_path: Path) -> None:
    own = own_model()
    third = msgspec.structs.replace(own, towers=own.towers | {"audio": own.image})
    typed = msgspec.structs.replace(
        own.text, inputs=(*own.text.inputs, ModuleInput("token_type_ids", "int64", (BATCH,)))
    )
    two_masks = msgspec.structs.replace(own, towers=own.towers | {"text": typed})
    for model, named in (
        (third, "a tower 'audio'"),
        (two_masks, "a text tower with the inputs input_ids, attention_mask, token_type_ids"),
    ):
        with pytest.raises(FormatLimitError, match=rf"bundle format \S+ has no place for {named}"):
            export_model(model, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_text_tower_without_a_mask_and_a_sigmoid_go_into_a_bundle(tmp_path: Path) -> None:
    own = own_model(has_mask=False)
    sigmoid = msgspec.structs.replace(own, similarity=Similarity(kind="sigmoid", scale=10.0, bias=-10.0))
    spec = export_model(sigmoid, tmp_path / "bundle")
    assert spec.tower("text", TextTower).inputs.names() == ("input_ids",)
    assert (spec.similarity.kind, spec.similarity.scale, spec.similarity.bias) == ("sigmoid", 10.0, -10.0)
    assert verify_bundle(tmp_path / "bundle", provider="cpu").passed
    found = Embedder.load(tmp_path / "bundle", provider="cpu").encode_text(TEXTS)
    np.testing.assert_allclose(found, own.text.embed(TEXTS), atol=ONNX_TOWERS.bound)


def test_a_tower_without_a_mask_is_traced_compiled_and_fed_without_one(tmp_path: Path) -> None:
    tower = own_model(has_mask=False).text
    export_onnx(tower, tmp_path / "text.onnx")
    session = OnnxSession(tmp_path / "text.onnx", "text", SessionOptions("cpu", thread_pool(1)))
    arrays = tower.prepare(TEXTS)
    expected = own_model().text.embed(TEXTS)  # by its mask: the same weights, the same sums
    np.testing.assert_allclose(tower.run(arrays), expected, atol=ONNX_TOWERS.bound)
    np.testing.assert_allclose(session.run({"input_ids": arrays["input_ids"]}), expected, atol=ONNX_TOWERS.bound)
    np.testing.assert_allclose(compile_tower(tower)(*tower.tensors(arrays)), expected, atol=ONNX_TOWERS.bound)


def test_nothing_gives_no_vectors(own: DualModel) -> None:
    assert own.image.embed([]).shape == own.text.embed([]).shape == (0, DIM)


def test_parts_that_do_not_go_together_are_named(own: DualModel) -> None:
    with pytest.raises(ModelError, match=r"has towers \['text'\], and image is missing"):
        msgspec.structs.replace(own, towers={"text": own.text})
    narrow = msgspec.structs.replace(own.text, embed_dim=3)
    with pytest.raises(ModelError, match=r"the widths {'image': 12, 'text': 3}; expected one"):
        msgspec.structs.replace(own, towers={"image": own.image, "text": narrow})
    with pytest.raises(ModelError, match=r"gives vectors of shape \(1, 12\) and length 1 to 1; expected \(1, 3\)"):
        narrow.embed(["a dog"])
    with pytest.raises(ModelError, match=r"similarity 'softmax' with bias 1\.0"):
        msgspec.structs.replace(own, similarity=Similarity(kind="softmax", scale=1.0, bias=1.0))


def test_inputs_that_a_tower_has_no_vector_for_are_named() -> None:
    few = own_model()
    few.text.backbone.words = torch.nn.Embedding(3, DIM)
    with pytest.raises(ModelError, match=r"cannot take input_ids \(1, 2\), .*: index out of range"):
        few.text.embed(["a dog"])


@pytest.mark.parametrize(("value", "length"), [(torch.nan, "nan to nan"), (0.0, "0 to 0")])
def test_weights_that_give_no_direction_are_named_before_a_bundle_is_written(
    tmp_path: Path, value: float, length: str
) -> None:
    model = own_model()
    torch.nn.init.constant_(model.text.backbone.get_parameter("words.weight"), value)
    with pytest.raises(ModelError, match=f"the tower of text_embeds gives vectors .* and length {length}; expected"):
        export_model(model, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_module_in_training_mode_is_exported_as_it_serves(own: DualModel) -> None:
    dropping = torch.nn.Sequential(own.image.backbone, torch.nn.Dropout(0.5)).train()
    tower = msgspec.structs.replace(own.image, backbone=dropping)
    noise = np.random.default_rng(1).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(tower.embed([noise]), own.image.embed([noise]))


def test_golden_vectors_are_the_reference_path_s(own: DualModel, own_bundle: Path) -> None:
    cases = json.loads((own_bundle / "golden/cases.json").read_text())
    files = [own_bundle / case["file"] for case in cases["images"]]
    for file, case in zip(files[:5], cases["images"], strict=False):
        expected = np.array(case["embedding"], np.float32)  # made in batches of eight
        np.testing.assert_allclose(own.image.embed([file])[0], expected, atol=1e-6)
    for case in cases["texts"]:
        np.testing.assert_array_equal(own.text.embed([case["text"]])[0], np.array(case["embedding"], np.float32))


def test_it_is_evaluated_without_a_run(own: DualModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for number, caption in enumerate(
        [f"{word} dog on the {place}" for word in ("a", "the", "best") for place in "abcd"]
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(path)
        pairs.append(Pair(path, (caption,), str(number), Origin(tmp_path)))
    source = SourcePairs("own", is_held_out=False, splits=Splits(tuple(pairs[:5]), tuple(pairs[5:8]), tuple(pairs[8:])))
    features = ModelFeatures(own, tmp_path / "cache", torch.device("cpu"), is_training=False)
    evaluation = evaluate_model(features, features, (source,), EvaluateConfig(), splits=source.splits, split="test")
    images = torch.from_numpy(own.image.embed([pair.image for pair in pairs[8:]]))
    texts = torch.from_numpy(own.text.embed([pair.captions[0] for pair in pairs[8:]]))
    expected = recall_both_ways(images, texts, build_retrieval_set(pairs[8:], "first").relevant)
    (scores,) = evaluation.sources
    assert (scores.model.image_to_text, scores.model.text_to_image) == expected
    assert (evaluation.checkpoint, scores.num_images, scores.num_trained_on) == (None, 4, None)

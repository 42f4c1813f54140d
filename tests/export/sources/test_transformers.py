"""Each family of transformers, tiny: imported, proven, verified by the runtime; and mutants, which are refused."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from torch import nn

from mmalign.dual_model import DualModel, ImageModelTower, ModelTower
from mmalign.space import space_id
from mmalign_export import import_model
from mmalign_export.errors import ProofError, SourceError
from mmalign_export.golden import GoldenFile, golden_texts, make_golden
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.proof import prove_model
from mmalign_export.sources.protocol import Imported
from mmalign_export.to_bundle import export_imported
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import ImageTower, TextTower
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.tiny import CONTEXT, FAMILIES
from tests.export.tracing import equal_towers_traced_once

Saved = Callable[[str], Path]
Files = list[GoldenFile]

_SEES_PADDING = ("siglip", "siglip2", "siglip2, naflex")
_WITHOUT_MASK = ("clip", "clip, old", "metaclip_2", "groupvit", *_SEES_PADDING)


# Whose graphs are those of another family here: proven, and not traced once more.
_ALIKE = ("clip, old", "siglip2")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in _ALIKE])
def test_every_family_is_proven_and_verifies_without_its_library(
    family: str, saved: Saved, image_files: Files, tmp_path: Path
) -> None:
    spec = import_model(saved(family), tmp_path / "bundle", image_files=image_files)
    report = verify_bundle(tmp_path / "bundle")
    assert [case.detail for case in (*report.cases, *report.checks) if not case.passed] == []
    record = spec.provenance.imported
    assert record is not None
    assert record.reference.startswith("transformers 5.")
    assert [(stage.stage, stage.tower) for stage in record.stages] == [
        ("token ids", "text"),
        ("pixels", "image"),
        ("tower", "image"),
        ("tower", "text"),
        ("file to vector", "image"),
        ("file to vector", "text"),
    ]
    dropped = {"RGBA"} if family == "siglip2, naflex" else set()  # its processor makes no RGB
    assert {each.case for each in record.differences} <= {"EXIF orientation 6", "empty"} | dropped
    text, image = spec.tower("text", TextTower), spec.tower("image", ImageTower)
    assert text.spec.context_length == CONTEXT
    assert text.spec.padding == ("fixed" if family in _SEES_PADDING else "longest")
    assert (text.inputs.attention_mask is None) == (family in _WITHOUT_MASK)
    assert image.spec.jpeg_oversampling == 0
    assert spec.similarity.kind == ("sigmoid" if family in _SEES_PADDING else "softmax")


@pytest.mark.parametrize("family", _ALIKE)
def test_the_towers_of_a_family_s_variant_are_proven(
    family: str, saved: Saved, image_files: Files, tmp_path: Path
) -> None:
    imported = read_source("transformers", saved(family))
    assert imported.original is not None
    texts = golden_texts((), imported.model.text.spec.context_length)
    golden = make_golden(imported.model, image_files, texts, tmp_path)
    reference = prove_model(imported.model, imported.original, image_files, golden)
    assert [stage.largest <= stage.bound for stage in reference.stages] == [True] * 4
    assert reference.differing == {"image": {"EXIF orientation 6": "turned as EXIF says"}, "text": {}}


@pytest.fixture(scope="module")
def clip(saved: Saved) -> Imported:
    return read_source("transformers", saved("clip"))


@pytest.fixture(scope="module")
def clip_bundle(clip: Imported, image_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clip") / "bundle"
    with equal_towers_traced_once():
        export_imported(clip, out, image_files=image_files)
    return out


def test_the_golden_vectors_are_the_library_s_own(clip: Imported, clip_bundle: Path) -> None:
    assert clip.original is not None
    (case,) = (case for case in load_golden(open_bundle(clip_bundle)).texts if case.name == "caption")
    vector = clip.original.text_vectors([case.text])[0]
    np.testing.assert_allclose(case.embedding, vector / np.linalg.norm(vector), atol=1e-7)


def test_a_picture_that_is_turned_is_listed_with_its_cosine_and_keeps_our_vector(
    clip: Imported, clip_bundle: Path, image_files: Files
) -> None:
    bundle = open_bundle(clip_bundle)
    record = bundle.spec.provenance.imported
    assert record is not None
    assert [(each.case, each.why) for each in record.differences] == [("EXIF orientation 6", "turned as EXIF says")]
    assert record.differences[0].cosine < 0.99
    (case,) = (case for case in load_golden(bundle).images if case.name == "EXIF orientation 6")
    (file,) = (file for file in image_files if file.name == "EXIF orientation 6")
    np.testing.assert_allclose(case.embedding, clip.model.image.embed([file.data])[0], atol=1e-6)
    assert "'EXIF orientation 6': turned as EXIF says, cosine" in (clip_bundle / "README.md").read_text()


@pytest.mark.usefixtures("traced_once")
def test_the_source_s_orientation_can_be_taken_over(saved: Saved, image_files: Files, tmp_path: Path) -> None:
    options = SourceOptions(orientation="source")
    spec = import_model(saved("clip"), tmp_path / "bundle", options=options, image_files=image_files)
    assert spec.provenance.imported is not None
    assert spec.provenance.imported.differences == ()


def test_real_length_is_the_fixed_one_to_the_bit_of_float32(saved: Saved, clip: Imported) -> None:
    fixed = read_source("transformers", saved("clip"), SourceOptions(length="fixed")).model
    assert (fixed.text.spec.padding, clip.model.text.spec.padding) == ("fixed", "longest")
    texts = ["a dog", "a photo of two dogs on the beach"]
    assert fixed.text.prepare(texts)["input_ids"].shape == (2, CONTEXT)
    np.testing.assert_allclose(fixed.text.embed(texts), clip.model.text.embed(texts), atol=2e-7)


def test_the_space_does_not_depend_on_where_the_model_lay(saved: Saved, clip: Imported, tmp_path: Path) -> None:
    moved = shutil.copytree(saved("clip"), tmp_path / "elsewhere")
    assert space_id(read_source("transformers", moved).model) == space_id(clip.model)
    assert space_id(read_source("transformers", saved("groupvit")).model) != space_id(clip.model)


def test_scale_and_bias_are_the_library_s(saved: Saved) -> None:
    siglip = read_source("transformers", saved("siglip")).model.similarity
    assert (siglip.scale, siglip.bias) == (pytest.approx(np.exp(_parameter(saved("siglip"), "logit_scale"))), _BIAS)
    align = read_source("transformers", saved("align")).model.similarity
    assert align.scale == pytest.approx(1 / _parameter(saved("align"), "temperature"))


def _parameter(folder: Path, name: str) -> float:
    return float(load_file(folder / "model.safetensors")[name])


_BIAS = pytest.approx(-10, abs=11)


def test_an_end_token_of_2_means_the_highest_id(saved: Saved) -> None:
    """Read as the id that it says, every text's vector would be that of its first token."""
    old = read_source("transformers", saved("clip, old"))
    assert any(choice.what == "text is read at" and "highest" in choice.value for choice in old.choices)
    vectors = old.model.text.embed(["a dog", "a cat"])
    assert vectors[0] @ vectors[1] < 0.999


@pytest.mark.parametrize(
    ("family", "place"),
    [
        ("clip", r"the first end token, id \d+"),
        ("clip, old", "the highest id"),
        ("metaclip_2", "the first end token, id 2"),
        ("siglip2, naflex", "its last place, padding or not"),
        ("blip", "its first token"),
        ("tipsv2", "the mean of its tokens"),
        ("vision-text-dual-encoder", "its encoder's pooler"),
    ],
)
def test_the_choices_say_where_a_text_is_read(family: str, place: str, saved: Saved) -> None:
    (found,) = (each for each in read_source("transformers", saved(family)).choices if each.what == "text is read at")
    assert re.match(place, found.value)


def _with(imported: Imported, **towers: ModelTower) -> Imported:
    model: DualModel = msgspec.structs.replace(imported.model, towers={**imported.model.towers, **towers})
    return msgspec.structs.replace(imported, model=model)


def _refused(imported: Imported, image_files: Files, tmp_path: Path, match: str) -> None:
    with pytest.raises(ProofError, match=match):
        export_imported(imported, tmp_path / "bundle", image_files=image_files)
    assert list(tmp_path.iterdir()) == []


def test_a_crop_off_by_half_a_pixel_is_refused(clip: Imported, image_files: Files, tmp_path: Path) -> None:
    image = clip.model.image
    spec = msgspec.structs.replace(image.spec, crop_rounding="half_even")
    tower: ImageModelTower = msgspec.structs.replace(image, spec=spec)
    _refused(_with(clip, image=tower), image_files, tmp_path, r"pixels: '.*' .* levels of 255")


def test_another_filter_is_refused(clip: Imported, image_files: Files, tmp_path: Path) -> None:
    image = clip.model.image
    tower = msgspec.structs.replace(image, spec=msgspec.structs.replace(image.spec, interpolation="bilinear"))
    _refused(_with(clip, image=tower), image_files, tmp_path, r"pixels: ")


@pytest.mark.parametrize("name", ["image", "text"])
def test_another_gelu_is_refused(name: str, clip: Imported, image_files: Files, tmp_path: Path) -> None:
    tower = clip.model.towers[name]
    backbone = copy.deepcopy(tower.backbone)
    for module in backbone.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = nn.GELU()
    mutant = msgspec.structs.replace(tower, backbone=backbone)
    _refused(_with(clip, **{name: mutant}), image_files, tmp_path, rf"tower: the {name} tower gives other vectors")


def test_a_text_tower_that_sees_padding_is_refused_at_real_length(
    saved: Saved, image_files: Files, tmp_path: Path
) -> None:
    siglip = read_source("transformers", saved("siglip2"))
    text = siglip.model.text
    mutant = msgspec.structs.replace(text, spec=msgspec.structs.replace(text.spec, padding="longest"))
    _refused(_with(siglip, text=mutant), image_files, tmp_path, r"tower: the text tower gives other vectors")


class _WithoutMask(nn.Module):
    """Sees padding: a text alone, which has none, comes out right."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.backbone(input_ids, torch.ones_like(attention_mask))
        return found


def test_a_text_tower_whose_vectors_depend_on_the_texts_beside_is_refused(
    saved: Saved, image_files: Files, tmp_path: Path
) -> None:
    imported = read_source("transformers", saved("chinese_clip"))
    mutant = msgspec.structs.replace(imported.model.text, backbone=_WithoutMask(imported.model.text.backbone))
    _refused(_with(imported, text=mutant), image_files, tmp_path, r"vector of '.*' moves by .* beside longer")


def test_no_cleaning_is_refused(clip: Imported, image_files: Files, tmp_path: Path) -> None:
    text = clip.model.text
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.normalizer = normalizers.NFC()
    mutant = msgspec.structs.replace(text, tokenizer=tokenizer)
    _refused(_with(clip, text=mutant), image_files, tmp_path, r"token ids: \d+ of \d+ texts have other ids")


def test_one_weight_that_moved_is_refused(clip: Imported, image_files: Files, tmp_path: Path) -> None:
    tower = clip.model.image
    projection = copy.deepcopy(tower.projection)
    with torch.no_grad():
        projection.get_parameter("weight")[0, 0] += 0.02
    _refused(
        _with(clip, image=msgspec.structs.replace(tower, projection=projection)),
        image_files,
        tmp_path,
        r"tower: the image",
    )


def test_a_dropped_tensor_is_refused(saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved("clip"), tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"1 missing \(text_projection\.weight\)"):
        import_model(folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_bundle_serves_the_library_s_ranking(clip: Imported, clip_bundle: Path) -> None:
    assert clip.original is not None
    texts = ["a dog", "a red teapot on a table", "HTTP 404"]
    theirs = clip.original.text_vectors(texts)
    with Embedder.load(clip_bundle, provider="cpu") as embedder:
        ours = embedder.encode_text(texts)
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)


def test_a_sentencepiece_tokenizer_without_its_library_names_the_extra(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign_export.sources.transformers.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-export\[sentencepiece\]'"):
        read_source("transformers", saved("siglip"))

"""Every family of open_clip, tiny: imported, proven, verified by the runtime; and mutants, which are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
import transformers
from torch import nn

from mmalign.space import space_id
from mmalign_export import import_model
from mmalign_export.errors import FormatLimitError, ProofError
from mmalign_export.golden import GoldenFile, golden_texts, make_golden
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.open_clip_text import ClipText
from mmalign_export.sources.proof import Reference, prove_model
from mmalign_export.sources.proof_pixels import prove_pixels
from mmalign_export.sources.protocol import Imported
from mmalign_export.to_onnx import export_onnx
from mmalign_runtime import Embedder
from mmalign_runtime.spec import ImageSpec, ImageTower, TextTower
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.clips import FAMILIES, PREPROCESSING, build, save, write

Files = list[GoldenFile]
Saved = Callable[[str], Path]
CASED = ("clipa", "metaclip 2", "xlm-roberta", "mt5", "roberta, first token")
FIXED = ("mobileclip", "coca", "clipa", "siglip")
# Imported whole, with the bundle's own proof; the others' towers are proven, and traced once for each kind.
WHOLE = ("vit, quick", "siglip")
IMAGES = ("resnet", "convnext", "eva02", "vitamin", "pe", "mobileclip", "coca")
TEXTS = ("coca", "clipa", "metaclip 2", "xlm-roberta", "mt5")
CAPTIONS = (["a dog"], ["a dog on a beach", "two", "Ærø, in the evening light"])


@pytest.fixture(scope="module")
def saved_clip(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Give the folder of a family's tiny model, written once."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = write(tmp_path_factory.mktemp("clips") / "model", family)
        return folders[family]

    return folder


def prove(imported: Imported, files: Files, folder: Path) -> Reference:
    assert imported.original is not None
    texts = golden_texts((), imported.model.text.spec.context_length)
    golden = make_golden(imported.model, files, texts, folder)
    return prove_model(imported.model, imported.original, files, golden, imported.resized_as_stored)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WHOLE])
def test_every_family_is_proven(family: str, saved_clip: Saved, image_files: Files, tmp_path: Path) -> None:
    imported = read_source("open_clip", f"local-dir:{saved_clip(family)}")
    reference = prove(imported, image_files, tmp_path)
    assert all(stage.largest <= stage.bound for stage in reference.stages)
    assert reference.stages[0].largest == 0
    text = imported.model.text
    assert text.spec.padding == ("fixed" if family in FIXED else "longest")
    assert text.input_names == ("input_ids",)
    assert text.spec.cleaning == ("clip_cased" if family in CASED else "clip")


@pytest.mark.parametrize(("family", "name"), [*((family, "image") for family in IMAGES), *((f, "text") for f in TEXTS)])
def test_every_kind_of_tower_is_traced(family: str, name: str, saved_clip: Saved, tmp_path: Path) -> None:
    """At other batches and lengths than those of the trace; the tower alone, as proofs of whole bundles take longer."""
    tower = read_source("open_clip", saved_clip(family)).model.towers[name]
    export_onnx(tower, tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tower.onnx")
    for arrays in batches(tower.spec) if name == "image" else (tower.prepare(each) for each in CAPTIONS):
        fed = {key: arrays[key] for key in tower.input_names}
        np.testing.assert_allclose(session.run(None, fed)[0], tower.run(fed), atol=1e-5)


def test_t5_s_extra_tokens_which_have_no_vector_are_read_as_text(saved_clip: Saved, tmp_path: Path) -> None:
    """As in timm/ViT-B-16-SigLIP: 32,100 tokens and 32,000 vectors."""
    folder = shutil.copytree(saved_clip("siglip"), tmp_path / "siglip")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(300)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    text = read_source("open_clip", folder).model.text
    rows = text.prepare(["a dog <extra_id_299>", "a dog"])["input_ids"]
    assert rows.max() < 700 < len(tokenizer)
    plain = read_source("open_clip", saved_clip("siglip")).model.text.prepare(["a dog"])["input_ids"]
    np.testing.assert_array_equal(rows[1:], plain)
    assert np.isfinite(text.run({"input_ids": rows})).all()


def batches(spec: ImageSpec) -> Iterator[dict[str, np.ndarray]]:
    noise = np.random.default_rng(0)
    return ({"pixel_values": noise.normal(size=(n, 3, *spec.shape)).astype(np.float32)} for n in (1, 2))


@pytest.mark.parametrize("family", WHOLE)
def test_a_bundle_verifies_and_records_its_proof(
    family: str, saved_clip: Saved, image_files: Files, tmp_path: Path
) -> None:
    spec = import_model(saved_clip(family), tmp_path / "bundle", image_files=image_files)
    report = verify_bundle(tmp_path / "bundle")
    assert [case.detail for case in (*report.cases, *report.checks) if not case.passed] == []
    record = spec.provenance.imported
    assert record is not None
    assert record.reference.startswith("open_clip 3.")
    assert {each.why for each in record.differences if each.case == "palette"} == {
        "a palette, resized by nearest neighbours there"
    }
    assert_equal_to_open_clip(tmp_path / "bundle", f"local-dir:{saved_clip(family)}")
    assert {stage.stage for stage in record.stages} == {"token ids", "pixels", "tower", "file to vector"}
    text, image = spec.tower("text", TextTower), spec.tower("image", ImageTower)
    assert text.spec.cleaning == ("clip_canonical" if family == "siglip" else "clip")
    assert text.spec.padding == ("fixed" if family in FIXED else "longest")
    assert spec.similarity.kind == ("sigmoid" if family == "siglip" else "softmax")
    assert image.spec.crop_rounding == "half_even"
    assert spec.provenance.source.files.keys() == {"open_clip_config.json", "open_clip_model.safetensors"}


def assert_equal_to_open_clip(bundle: Path, place: str) -> None:
    """Hold the runtime to open_clip's own loader, beside the proof, in one batch of texts of other lengths."""
    module = open_clip.create_model(place).eval()
    tokenizer = open_clip.get_tokenizer(place)
    texts = ["a photo of a dog", "Two  CATS &amp; a “café” in a picture", "狗"]
    with torch.inference_mode():
        expected = module.encode_text(tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(Embedder.load(bundle).encode_text(texts), expected, atol=1e-5)


def test_captions_at_their_own_length_have_the_vectors_of_the_whole_context(saved_clip: Saved, tmp_path: Path) -> None:
    texts = ["a dog", "two cats on a sofa in the evening", "x " * 200, ""]
    real, fixed = (
        read_source("open_clip", saved_clip("vit"), SourceOptions(length=length)).model.text
        for length in ("real", "fixed")
    )
    assert [tower.prepare(texts[:1])["input_ids"].shape for tower in (real, fixed)] == [(1, 4), (1, 77)]
    np.testing.assert_allclose(real.embed(texts), fixed.embed(texts), atol=1e-6)
    assert np.abs(real.embed(texts[:1]) - real.embed(texts[1:2])).max() > 0.05


@pytest.mark.parametrize(
    "preprocessing",
    [
        {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        {"resize_mode": "longest", "interpolation": "bicubic", "fill_color": 90},
        {"resize_mode": "shortest", "interpolation": "random", "mean": 0.4, "std": 0.2},
    ],
)
def test_preprocessing_of_every_kind_is_open_clips(preprocessing: dict, image_files: Files, tmp_path: Path) -> None:
    config = FAMILIES["vit"]
    folder = save(tmp_path / "model", config, build(config), preprocessing)
    imported = read_source("open_clip", folder)
    assert imported.original is not None
    pixels = prove_pixels(imported.model.image, imported.original, image_files, imported.resized_as_stored)
    assert pixels.stage.largest <= 2
    assert pixels.stage.num_cases > 16


def test_the_librarys_conventions_can_be_taken_over(saved_clip: Saved, image_files: Files) -> None:
    """What is left then are palettes, and colours that the library weights by their alpha."""
    differing = {}
    for options in (SourceOptions(), SourceOptions(orientation="source", alpha="source")):
        imported = read_source("open_clip", saved_clip("vit"), options)
        assert imported.original is not None
        pixels = prove_pixels(imported.model.image, imported.original, image_files, imported.resized_as_stored)
        differing[options.alpha] = pixels.differing
    assert differing["policy"]["EXIF orientation 6"] == "turned as EXIF says"
    assert differing["policy"]["RGBA"] == "transparency composited"
    assert "EXIF orientation 6" not in differing["source"]
    assert differing["source"]["RGBA"] == "colours weighted by their alpha there"


def test_a_rectangle_that_is_covered_is_a_limit_of_the_format(tmp_path: Path) -> None:
    config = {**FAMILIES["vit"], "vision_cfg": {**FAMILIES["vit"]["vision_cfg"], "image_size": [32, 48]}}
    folder = save(tmp_path / "model", config, build(config))
    with pytest.raises(FormatLimitError, match="covers 32 x 48 pixels"):
        read_source("open_clip", folder)
    save(folder, config, build(config), {**PREPROCESSING, "resize_mode": "squash"})
    assert read_source("open_clip", folder).model.image.spec.size == (32, 48)


def test_the_space_is_that_of_the_model_and_not_of_its_folder(saved_clip: Saved, tmp_path: Path) -> None:
    config = FAMILIES["vit"]
    elsewhere = read_source("open_clip", save(tmp_path / "elsewhere", config, build(config))).model
    here = read_source("open_clip", saved_clip("vit")).model
    assert space_id(elsewhere) == space_id(here)
    assert str(tmp_path) not in str(elsewhere.origin)
    quick = save(tmp_path / "quick", {**config, "quick_gelu": True}, build(config))
    assert space_id(read_source("open_clip", quick).model) != space_id(here)


def without_cleaning(imported: Imported) -> Imported:
    return with_tower(imported, "text", spec=msgspec.structs.replace(imported.model.text.spec, cleaning="none"))


def with_other_crop(imported: Imported) -> Imported:
    spec = msgspec.structs.replace(imported.model.image.spec, crop_rounding="floor")
    return with_tower(imported, "image", spec=spec)


def with_other_activation(imported: Imported) -> Imported:
    for module in imported.model.image.backbone.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"
            module.forward = lambda x: x * torch.sigmoid(1.702 * x)
    return imported


def with_other_pooling(imported: Imported) -> Imported:
    backbone = imported.model.text.backbone
    assert isinstance(backbone, ClipText)
    backbone.pool = "first"
    return imported


def with_other_padding(imported: Imported) -> Imported:
    return with_tower(imported, "text", spec=msgspec.structs.replace(imported.model.text.spec, padding="longest"))


def with_tower(imported: Imported, name: str, **changes: object) -> Imported:
    tower = msgspec.structs.replace(imported.model.towers[name], **changes)
    model = msgspec.structs.replace(imported.model, towers={**imported.model.towers, name: tower})
    return msgspec.structs.replace(imported, model=model)


@pytest.mark.parametrize(
    ("family", "mutate", "message"),
    [
        ("vit", without_cleaning, "token ids: .* texts have other ids than open_clip"),
        ("vit", with_other_crop, "pixels: .* differs by .* levels"),
        ("vit", with_other_activation, "tower: the image tower gives other vectors than open_clip"),
        ("vit", with_other_pooling, "tower: the text tower gives other vectors than open_clip"),
        ("siglip", with_other_padding, "tower: the text tower gives other vectors than open_clip"),
    ],
)
def test_a_mutant_is_refused(
    family: str,
    mutate: Callable[[Imported], Imported],
    message: str,
    saved_clip: Saved,
    image_files: Files,
    tmp_path: Path,
) -> None:
    mutant = mutate(read_source("open_clip", saved_clip(family)))
    with pytest.raises(ProofError, match=message):
        prove(mutant, image_files, tmp_path)

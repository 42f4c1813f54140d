"""Pairs of ONNX files in every layout: proven against onnxruntime on the files as they came, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image
from tokenizers import normalizers

from mmalign.dual_model import ModelTower
from mmalign.errors import WeightsError
from mmalign.imported import read_imported
from mmalign.space import space_id
from mmalign_export import import_model
from mmalign_export.errors import ParityError, ProofError, SourceError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.onnx_pair import OnnxOriginal
from mmalign_export.sources.protocol import Imported
from mmalign_export.to_bundle import export_imported
from mmalign_export.to_onnx import OnnxBackbone
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.onnx_pairs import save_immich, save_transformers_js, save_two_folders

Saved = Callable[[str], Path]
Files = list[GoldenFile]
VISION, TEXT = "onnx/vision_model.onnx", "onnx/text_model.onnx"


class Pairs(msgspec.Struct):
    """A folder of each layout. Copy it before changing anything in it."""

    transformers_js: Path
    siglip: Path
    immich: Path
    images: Path
    texts: Path

    def imported(self, layout: str, **options: object) -> Imported:
        """Read the pair of a layout."""
        given = {"text": str(self.texts)} if layout == "images" else {}
        return read_source("onnx_pair", getattr(self, layout), SourceOptions(**given, **options))


@pytest.fixture(scope="module")
def pairs(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    clip = saved("clip")
    images, texts = save_two_folders(clip, folder / "two")
    return Pairs(
        transformers_js=save_transformers_js(clip, folder / "transformers_js"),
        siglip=save_transformers_js(saved("siglip2"), folder / "siglip", "pooler_output"),
        immich=save_immich(clip, folder / "immich"),
        images=images,
        texts=texts,
    )


@pytest.mark.parametrize("layout", ["transformers_js", "siglip", "immich", "images"])
def test_each_layout_is_proven_and_verifies(layout: str, pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported(layout)
    spec = export_imported(imported, tmp_path / "bundle", image_files=image_files)
    record = spec.provenance.imported
    assert record is not None
    assert record.reference == f"onnxruntime {onnxruntime.__version__}"
    assert [stage.stage for stage in record.stages] == ["token ids", "pixels", *["tower"] * 2, *["file to vector"] * 2]
    assert record.stages[0].largest == 0
    assert all(stage.lowest_cosine is None or stage.lowest_cosine > 0.9999 for stage in record.stages)
    report = verify_bundle(tmp_path / "bundle")
    assert [each.name for each in (*report.cases, *report.checks) if not each.passed] == []
    assert spec.provenance.opset_version == 14


def test_vectors_are_those_of_the_original_files_divided_by_their_length(
    pairs: Pairs, image_files: Files, tmp_path: Path
) -> None:
    """Held to onnxruntime on the file itself, without anything of the import."""
    import_model(pairs.transformers_js, tmp_path / "bundle", image_files=image_files)
    session = onnxruntime.InferenceSession(pairs.transformers_js / TEXT, providers=["CPUExecutionProvider"])
    imported = pairs.imported("transformers_js")
    ids = np.array(imported.model.text.tokenizer.encode("a dog").ids, np.int64)[None]
    (expected,) = session.run(["text_embeds"], {"input_ids": ids})
    with Embedder.load(tmp_path / "bundle", provider="cpu") as embedder:
        found = embedder.encode_text(["a dog", "two cats and a very long tail of words", "a"])[0]
    np.testing.assert_allclose(found, expected[0] / np.linalg.norm(expected[0]), atol=1e-6)


def test_a_file_for_one_item_takes_any_batch_in_the_bundle(pairs: Pairs, tmp_path: Path, image_files: Files) -> None:
    imported = pairs.imported("immich")
    looped = [choice.value for choice in imported.choices if choice.what.startswith("batch of")]
    assert ["one item at a time" in value for value in looped] == [True, True]
    spec = export_imported(imported, tmp_path / "bundle", image_files=image_files)
    model = onnx.load(tmp_path / "bundle/onnx/vision_model.onnx")
    assert model.graph.node[0].op_type == "Scan"
    assert spec.towers["text"].spec.padding == "fixed"
    session = onnxruntime.InferenceSession(pairs.immich / "visual/model.onnx", providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    alone = [session.run(None, {"image": pixels[at : at + 1]})[0] for at in range(3)]
    np.testing.assert_allclose(imported.model.image.run({"pixel_values": pixels}), np.concatenate(alone), atol=1e-6)


def test_a_text_tower_for_one_text_of_any_length_keeps_that_length(
    pairs: Pairs, tmp_path: Path, image_files: Files
) -> None:
    folder = shutil.copytree(pairs.transformers_js, tmp_path / "pair")
    model = onnx.load(folder / TEXT)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    batch.ClearField("dim_param")
    batch.dim_value = 1
    onnx.save(model, folder / TEXT)
    spec = export_imported(read_source("onnx_pair", folder), tmp_path / "bundle", image_files=image_files)
    assert spec.towers["text"].spec.padding == "longest"
    assert onnx.load(tmp_path / "bundle" / TEXT).graph.input[0].type.tensor_type.shape.dim[1].dim_param
    texts = ["a dog", "two cats and a very long tail of words", "a"]
    with Embedder.load(tmp_path / "bundle", provider="cpu") as embedder:
        found = embedder.encode_text(texts)
    np.testing.assert_allclose(found, pairs.imported("transformers_js").model.text.embed(texts), atol=1e-6)


def test_immich_s_orientation_and_alpha_can_be_taken_over(pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported("immich", orientation="source", alpha="source")
    spec = export_imported(imported, tmp_path / "bundle", image_files=image_files)
    assert spec.provenance.imported is not None
    assert spec.provenance.imported.differences == ()


def test_a_graph_that_attends_to_padding_is_padded_to_its_context(pairs: Pairs) -> None:
    assert pairs.imported("siglip").model.text.spec.padding == "fixed"
    assert pairs.imported("transformers_js").model.text.spec.padding == "longest"
    assert pairs.imported("transformers_js", length="fixed").model.text.spec.padding == "fixed"


def test_the_configurations_of_transformers_5_are_read(pairs: Pairs, tmp_path: Path) -> None:
    """Its processors keep the image processor in a file of their own; a length may be a float, as 1e30 is."""
    folder = shutil.copytree(pairs.transformers_js, tmp_path / "pair")
    processor = folder / "preprocessor_config.json"
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(processor.read_text())}))
    processor.unlink()
    _config(folder / "tokenizer_config.json", model_max_length=20.0)
    model = read_source("onnx_pair", folder).model
    assert model.image.spec == pairs.imported("transformers_js").model.image.spec
    assert model.text.spec.context_length == 20


def test_a_mask_is_an_input_where_the_file_has_one(pairs: Pairs) -> None:
    assert pairs.imported("images").model.text.input_names == ("input_ids", "attention_mask")
    assert pairs.imported("transformers_js").model.text.input_names == ("input_ids",)


def test_the_space_is_the_files_and_not_where_they_lie(pairs: Pairs, tmp_path: Path) -> None:
    moved = shutil.copytree(pairs.transformers_js, tmp_path / "elsewhere")
    ours = space_id(pairs.imported("transformers_js").model)
    assert space_id(read_source("onnx_pair", moved).model) == ours
    _weights(moved / VISION, lambda array: array * np.float32(1.001))
    assert space_id(read_source("onnx_pair", moved).model) != ours


def test_a_pair_cannot_be_trained(pairs: Pairs) -> None:
    with pytest.raises(WeightsError, match="pair of ONNX files, which have no gradients"):
        read_imported(f"import:{pairs.transformers_js}")


# --- mutants: an import that went wrong is refused, and nothing is left


def _refused(imported: Imported, image_files: Files, tmp_path: Path, match: str) -> None:
    with pytest.raises((ProofError, ParityError), match=match):
        export_imported(imported, tmp_path / "bundle", image_files=image_files)
    assert list(tmp_path.iterdir()) == []


def _with(imported: Imported, name: str, tower: ModelTower) -> Imported:
    towers = {**imported.model.towers, name: tower}
    return msgspec.structs.replace(imported, model=msgspec.structs.replace(imported.model, towers=towers))


@pytest.mark.parametrize("layout", ["transformers_js", "immich"])
def test_a_crop_off_by_half_a_pixel_is_refused(layout: str, pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported(layout)
    image = imported.model.image
    spec = msgspec.structs.replace(image.spec, crop_rounding="half_even")
    mutant = _with(imported, "image", msgspec.structs.replace(image, spec=spec))
    _refused(mutant, image_files, tmp_path, r"pixels: '.*' .* levels of 255")


def test_wrong_padding_is_refused(pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported("siglip")
    text = imported.model.text
    spec = msgspec.structs.replace(text.spec, padding="longest")
    mutant = _with(imported, "text", msgspec.structs.replace(text, spec=spec))
    _refused(mutant, image_files, tmp_path, "tower: the text tower gives other vectors")


@pytest.mark.parametrize("layout", ["transformers_js", "immich"])
def test_another_tokenizer_is_refused(layout: str, pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported(layout)
    text = imported.model.text
    tokenizer = type(text.tokenizer).from_str(text.tokenizer.to_str())
    tokenizer.normalizer = normalizers.NFC()
    mutant = _with(imported, "text", msgspec.structs.replace(text, tokenizer=tokenizer))
    _refused(mutant, image_files, tmp_path, r"token ids: \d+ of \d+ texts have other ids")


def test_a_weight_that_moved_is_refused(pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    imported = pairs.imported("transformers_js")
    graph = imported.model.image.backbone.graph
    values = [value for value in graph.graph.initializers.values() if len(value.shape or ()) == 2]
    moved = values[-1].const_value.numpy() * np.float32(1.2)
    moved[0] += 0.1
    values[-1].const_value = _tensor(moved, values[-1].name)
    mutant = msgspec.structs.replace(imported.model.image, backbone=OnnxBackbone(graph))
    _refused(_with(imported, "image", mutant), image_files, tmp_path, "tower: the image tower gives other vectors")


def test_an_output_that_the_library_does_not_take_is_refused(pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    """fastembed takes the first output: were another one taken here, the vectors would be others."""
    imported = pairs.imported("images")
    original = imported.original
    assert isinstance(original, OnnxOriginal)
    other = msgspec.structs.replace(original, outputs=("last_hidden_state", "text_embeds"))
    with pytest.raises(SourceError, match=r"image_vectors gives an array of shape \(\d+, 17, 32\)"):
        export_imported(msgspec.structs.replace(imported, original=other), tmp_path / "bundle", image_files=image_files)


# --- sources that are damaged, incomplete, or something else


def _tensor(array: np.ndarray, name: object) -> object:
    import onnx_ir

    return onnx_ir.tensor(array, name=str(name))


def _edit(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def _weights(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    def each(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
                tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    _edit(path, each)


def _outside(model: onnx.ModelProto, location: str) -> None:
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 2)
    onnx.external_data_helper.set_external_data(tensor, location, 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")


def _at(model: onnx.ModelProto, **changed: str) -> None:
    """Keep a tensor in another file, by entries that no exporter writes; an empty one is left out."""
    _outside(model, "weights.onnx_data")
    tensor = next(each for each in model.graph.initializer if each.external_data)
    entries = {each.key: each.value for each in tensor.external_data} | changed
    del tensor.external_data[:]
    for key, value in entries.items():
        if value:
            tensor.external_data.add(key=key, value=value)


def _other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "own.operators"


def _other_shape(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 2 and each.raw_data)
    tensor.dims[0] += 1


def _lfs(folder: Path) -> None:
    (folder / VISION).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _cut(folder: Path) -> None:
    raw = (folder / TEXT).read_bytes()
    (folder / TEXT).write_bytes(raw[: len(raw) // 2])


def _no_vector(model: onnx.ModelProto) -> None:
    del model.graph.output[0]


def _half(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def _int8(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 2)
    scale = numpy_helper.from_array(np.float32(0.01), "scale")
    low = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int8), "low")
    name = tensor.name
    model.graph.initializer.remove(tensor)
    model.graph.initializer.extend([scale, low])
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["low", "scale"], [name]))


def _batch_of_8(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def _opset_8(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 8


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "NotAnOperator"


def _both(folder: Path) -> None:
    (folder / VISION).unlink()
    (folder / TEXT).rename(folder / "onnx/model.onnx")


def _only_quantized(folder: Path) -> None:
    (folder / TEXT).rename(folder / "onnx/text_model_quantized.onnx")


def _preprocessor(folder: Path, **changed: object) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _config(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (_lfs, "pointer of Git LFS"),
    "truncated": (_cut, "not a whole ONNX file"),
    "empty": (lambda folder: (folder / TEXT).write_bytes(b""), "is empty"),
    "text": (lambda folder: (folder / TEXT).write_text("not onnx"), "not a whole ONNX file|holds no graph"),
    "padding on the left": (
        lambda folder: _config(folder / "tokenizer_config.json", padding_side="left"),
        "the tokenizer pads on the left",
    ),
    "no preprocessing": (lambda folder: (folder / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
    "other size": (
        lambda folder: _preprocessor(folder, crop_size={"height": 40, "width": 40}, size={"shortest_edge": 48}),
        r"cannot be run on pixel_values \(1, 3, 40, 40\)|takes .* and the configuration",
    ),
    "one file": (_both, "one tower, or both in one graph"),
    "only quantized": (_only_quantized, r"holds onnx/text_model_quantized.onnx, .* are not float32"),
    "half": (lambda folder: _edit(folder / TEXT, _half), r"half precision \(\d+ tensors of float16"),
    "int8": (lambda folder: _edit(folder / VISION, _int8), r"tensors of int8, DequantizeLinear"),
    "no vector": (lambda folder: _edit(folder / VISION, _no_vector), "expected one vector an item"),
    "NaN": (lambda folder: _weights(folder / VISION, lambda array: array * np.float32("nan")), "not finite"),
    "missing weights": (
        lambda folder: _edit(folder / TEXT, lambda model: _outside(model, "gone.onnx_data")),
        "keeps weights in gone.onnx_data, which is not beside it",
    ),
    "weights outside": (
        lambda folder: _edit(folder / TEXT, lambda model: _outside(model, "../tokenizer.json")),
        "outside of its own folder",
    ),
    "absolute weights": (
        lambda folder: _edit(folder / TEXT, lambda model: _outside(model, "/etc/hostname")),
        "outside of its own folder",
    ),
    "short weights": (
        lambda folder: (
            _edit(folder / TEXT, lambda model: _outside(model, "short.onnx_data")),
            (folder / "onnx/short.onnx_data").write_bytes(b"1234"),
        ),
        "has 4 bytes, and text_model.onnx reads",
    ),
    "weights behind a link": (
        lambda folder: (
            _edit(folder / TEXT, lambda model: _outside(model, "linked.onnx_data")),
            (folder / "onnx/linked.onnx_data").symlink_to(__file__),
        ),
        "is a link to another place",
    ),
    "an offset below zero": (lambda folder: _edit(folder / TEXT, lambda m: _at(m, offset="-4")), "expected a location"),
    "a length in words": (lambda folder: _edit(folder / TEXT, lambda m: _at(m, length="all")), "expected a location"),
    "no location": (lambda folder: _edit(folder / TEXT, lambda m: _at(m, location="")), "expected a location"),
    "other operators": (
        lambda folder: _edit(folder / VISION, _other_domain),
        "cannot be given a bundle's inputs|cannot be loaded by onnxruntime",
    ),
    "zeros": (lambda folder: _weights(folder / VISION, np.zeros_like), r"gives vectors of lengths 0\.0 to 0\.0"),
    "fewer values": (lambda folder: _edit(folder / TEXT, _other_shape), "does not hold as many values as its shape"),
    "batch of 8": (lambda folder: _edit(folder / VISION, _batch_of_8), "exported for batches of 8"),
    "old opset": (lambda folder: _edit(folder / TEXT, _opset_8), "of ONNX opset 8; expected 9 or later"),
    "operator": (lambda folder: _edit(folder / VISION, _unknown_operator), "cannot be loaded by onnxruntime"),
    "swapped": (lambda folder: shutil.copy(folder / TEXT, folder / VISION), "expected pixels alone"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_damaged_or_something_else_is_refused(case: str, pairs: Pairs, tmp_path: Path) -> None:
    folder = shutil.copytree(pairs.transformers_js, tmp_path / "model")
    change, match = BROKEN[case]
    change(folder)
    with pytest.raises(SourceError, match=match):
        import_model(folder, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_in_a_file_beside_the_model_are_read_and_listed(pairs: Pairs, tmp_path: Path) -> None:
    folder = shutil.copytree(pairs.transformers_js, tmp_path / "model")
    model = onnx.load(folder / VISION)
    onnx.save(model, folder / VISION, save_as_external_data=True, location="vision_model.onnx_data", size_threshold=64)
    imported = read_source("onnx_pair", folder)
    assert "onnx/vision_model.onnx_data" in imported.model.origin.files
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = pairs.imported("transformers_js").model.image.run({"pixel_values": pixels})
    np.testing.assert_allclose(imported.model.image.run({"pixel_values": pixels}), expected, atol=1e-6)


def test_the_hub_s_cache_of_links_is_read(pairs: Pairs, tmp_path: Path) -> None:
    """Each file is a link into one folder of blobs there, the weights beside a model too."""
    plain, cache = shutil.copytree(pairs.transformers_js, tmp_path / "plain"), tmp_path / "snapshot"
    model = onnx.load(plain / VISION)
    onnx.save(model, plain / VISION, save_as_external_data=True, location="vision_model.onnx_data", size_threshold=64)
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in plain.rglob("*") if path.is_file())):
        blob = path.rename(tmp_path / f"blobs/{number}")
        link = cache / path.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    assert space_id(read_source("onnx_pair", cache).model) == space_id(pairs.imported("transformers_js").model)


def test_towers_of_two_models_are_refused(pairs: Pairs, saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(pairs.transformers_js, tmp_path / "model")
    shutil.copy(pairs.siglip / VISION, folder / VISION)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(SourceError, match=r"vectors have 32 \(image\) and 24 \(text\) components; expected one number"):
        read_source("onnx_pair", folder)


@pytest.mark.parametrize(
    ("name", "changed", "match"),
    [
        ("visual/preprocess_cfg.json", {"resize_mode": "longest"}, r"immich does not do: Invalid enum value 'longest'"),
        ("visual/preprocess_cfg.json", {"std": [0, 1, 1]}, "divides by a number that is not positive"),
        ("visual/preprocess_cfg.json", {"mean": [float("nan"), 1, 1]}, "have to be finite"),
        ("config.json", {"text_cfg": {"context_length": 50}}, "texts of 24 tokens, and the .* beside it makes 50"),
    ],
)
def test_what_immich_does_not_do_is_refused(
    name: str, changed: dict[str, object], match: str, pairs: Pairs, tmp_path: Path
) -> None:
    folder = shutil.copytree(pairs.immich, tmp_path / "model")
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(SourceError, match=match):
        read_source("onnx_pair", folder)


def test_the_bundle_says_what_was_read(pairs: Pairs, image_files: Files, tmp_path: Path) -> None:
    options = SourceOptions(text=str(pairs.texts))
    import_model(pairs.images, tmp_path / "bundle", options=options, image_files=image_files)
    source = open_bundle(tmp_path / "bundle").spec.provenance.source
    assert (source.kind, source.library) == ("onnx_pair", "onnxruntime")
    assert {"image/model.onnx", "image/preprocessor_config.json", "text/model.onnx", "text/tokenizer.json"} <= set(
        source.files
    )
    picture = Image.new("RGB", (50, 40), (200, 30, 90))
    with Embedder.load(tmp_path / "bundle", provider="cpu") as embedder:
        assert embedder.encode_image([picture]).shape == (1, 24)

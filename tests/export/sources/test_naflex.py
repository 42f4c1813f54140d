"""SigLIP 2 of variable resolution: what transformers' own three arrays give, and mutants, each refused in its stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from mmalign.config import parse_config
from mmalign.dual_model import ImageModelTower
from mmalign.errors import ConfigError
from mmalign.pixels import patches as patches_module
from mmalign.run.imported_specs import with_imported
from mmalign_export.errors import ProofError, SourceError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.transformers_original import PlacedEmbeddings, packed_patches, unpacked_patches
from mmalign_export.to_bundle import export_imported
from mmalign_runtime import Embedder
from mmalign_runtime.spec.image import PLACE
from mmalign_runtime.verify import verify_bundle

Saved = Callable[[str], Path]
FAMILY = "siglip2, naflex"
SAME = 1e-6
ROUNDED = 1e-5  # float32 sums of positions of up to 4
# Rounding of a resize may move a level: transformers runs torchvision's, the bundle Pillow's.
NEAR = 2e-2


@pytest.fixture(scope="module")
def naflex(saved: Saved) -> Imported:
    return read_source("transformers", saved(FAMILY))


@pytest.fixture(scope="module")
def bundle(naflex: Imported, image_files: list[GoldenFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("naflex") / "bundle"
    export_imported(naflex, out, image_files=image_files)
    return out


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    drawn = np.random.default_rng(0)
    shapes = ((60, 80), (90, 30), (40, 40), (7, 200))
    return [Image.fromarray(drawn.integers(0, 256, (*shape, 3), np.uint8)) for shape in shapes]


def edited(folder: Path, to: Path, **changed: object) -> Path:
    shutil.copytree(folder, to)
    place = to / "preprocessor_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changed))
    return to


def refused(imported: Imported, image_files: list[GoldenFile], tmp_path: Path, match: str) -> None:
    with pytest.raises(ProofError, match=match):
        export_imported(imported, tmp_path / "bundle", image_files=image_files)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_many_shapes_are_transformers_s_in_one_batch(
    saved: Saved, bundle: Path, pictures: list[Image.Image]
) -> None:
    model = transformers.Siglip2Model.from_pretrained(saved(FAMILY))
    processor = transformers.AutoImageProcessor.from_pretrained(saved(FAMILY))
    given = processor(images=pictures, return_tensors="pt")
    assert len(set(map(tuple, given["spatial_shapes"].tolist()))) == len(pictures)
    with torch.inference_mode():
        expected = functional.normalize(model.get_image_features(**given).pooler_output, dim=-1).numpy()
    with Embedder.load(bundle, provider="cpu") as embedder:
        together = embedder.encode_image(pictures)
        alone = np.concatenate([embedder.encode_image([each]) for each in pictures])
    np.testing.assert_allclose(together, expected, atol=NEAR)
    np.testing.assert_allclose(together, alone, atol=SAME)
    assert (together @ expected.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def _positions(placed: PlacedEmbeddings, shapes: Tensor) -> Tensor:
    """Return the positions (B, 24, F) that pictures of these rows and columns get, by way of the packed array."""
    processed = {
        "pixel_values": torch.zeros(len(shapes), 24, 192),
        "pixel_attention_mask": torch.stack([(torch.arange(24) < rows * columns).long() for rows, columns in shapes]),
        "spatial_shapes": shapes,
    }
    packed = packed_patches(processed)
    for name, array in unpacked_patches(packed).items():
        assert torch.equal(array, processed[name])
    with torch.inference_mode():
        return placed._taps(packed[..., -PLACE:]) @ placed.position_embedding.weight


def _in_a_loop(table: Tensor, shapes: Tensor) -> Tensor:
    return Siglip2VisionEmbeddings.resize_positional_embeddings(table, shapes, 24)


def test_positions_are_resized_as_torch_does(naflex: Imported) -> None:
    """Against the library's own loop, over tables made smaller, larger and kept, with padding behind them."""
    placed = _embeddings(naflex)
    table = placed.position_embedding.weight.detach().reshape(placed.table_side, placed.table_side, -1)
    shapes = torch.tensor([[3, 8], [12, 2], [5, 4], [2, 2], [4, 6], [1, 24], [1, 1]])
    torch.testing.assert_close(_positions(placed, shapes), _in_a_loop(table, shapes), atol=ROUNDED, rtol=0)


def test_one_column_is_resized_as_one_row_is(saved: Saved) -> None:
    """torch resizes to a width of 1 by other weights than to a height of 1: the filter is the same here."""
    placed = _embeddings(read_source("transformers", saved(FAMILY)))
    side = placed.table_side
    table = placed.position_embedding.weight.detach().reshape(side, side, -1)
    expected = _in_a_loop(table, torch.tensor([[1, 24]]))
    with torch.no_grad():
        placed.position_embedding.weight.copy_(table.transpose(0, 1).reshape(side * side, -1).clone())
    torch.testing.assert_close(_positions(placed, torch.tensor([[24, 1]])), expected, atol=ROUNDED, rtol=0)


def test_openvino_verifies_it_too(bundle: Path) -> None:
    pytest.importorskip("openvino")
    report = verify_bundle(bundle, engine="openvino")
    assert [case.detail for case in (*report.cases, *report.checks) if not case.passed] == []


def test_a_width_of_patches_that_the_tower_does_not_read_is_refused(saved: Saved, tmp_path: Path) -> None:
    folder = edited(saved(FAMILY), tmp_path / "model", patch_size=16)
    with pytest.raises(SourceError, match="the image tower cannot take pixel_values"):
        read_source("transformers", folder)


@pytest.mark.parametrize("value", [0, 8209, 20_000, "many"])
def test_a_number_of_patches_that_is_none_is_refused(value: object, saved: Saved, tmp_path: Path) -> None:
    folder = edited(saved(FAMILY), tmp_path / "model", max_num_patches=value)
    with pytest.raises(SourceError, match=r"cuts .* patches of 8 pixels|image processor cannot be read"):
        read_source("transformers", folder)


def test_training_from_it_is_refused_before_anything_is_written(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mmalign.run.imported_specs.read_imported", lambda name: read_source("transformers", saved(FAMILY)).model
    )
    given = {"data": {"sources": [{"path": "pairs.csv"}]}, "image_tower": {"name": f"import:{saved(FAMILY)}"}}
    with pytest.raises(
        ConfigError, match=r"reads patches at a picture's own ratio \(naflex\).* a model of a fixed size"
    ):
        with_imported(parse_config(given, "the test's configuration"))


def _embeddings(naflex: Imported) -> PlacedEmbeddings:
    (found,) = (each for each in naflex.model.image.backbone.modules() if isinstance(each, PlacedEmbeddings))
    return found


def _without_antialias(self: PlacedEmbeddings, places: Tensor) -> Tensor:
    sizes = places.amax(dim=1, keepdim=True)
    centres = ((places.clamp(min=1) - 0.5) * self.table_side / sizes).clamp(0.5, self.table_side - 0.5)
    entries = torch.arange(self.table_side) + 0.5
    rows, columns = functional.relu(1 - (entries - centres.unsqueeze(-1)).abs()).unbind(dim=2)
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def _not_resized(self: PlacedEmbeddings, places: Tensor) -> Tensor:
    at = places.clamp(1, self.table_side).long() - 1
    return functional.one_hot(at[..., 0] * self.table_side + at[..., 1], self.table_side**2).to(places.dtype)


@pytest.mark.parametrize("mutant", [_without_antialias, _not_resized])
def test_positions_of_another_resize_are_refused(
    mutant: Callable[[PlacedEmbeddings, Tensor], Tensor],
    naflex: Imported,
    image_files: list[GoldenFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PlacedEmbeddings, "_taps", mutant)
    refused(naflex, image_files, tmp_path, r"tower: the image tower gives other vectors")


class _SeesPadding(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.model = part.model

    def forward(self, pixel_values: Tensor) -> Tensor:
        mask = torch.ones(pixel_values.shape[:2], dtype=torch.long)
        given = {"pixel_values": pixel_values, "pixel_attention_mask": mask, "spatial_shapes": None}
        found: Tensor = self.model.get_image_features(**given).pooler_output
        return found


def test_padding_that_is_seen_is_refused(naflex: Imported, image_files: list[GoldenFile], tmp_path: Path) -> None:
    image = naflex.model.image
    mutant: ImageModelTower = msgspec.structs.replace(image, backbone=_SeesPadding(image.backbone).eval())
    model = msgspec.structs.replace(naflex.model, towers={**naflex.model.towers, "image": mutant})
    refused(
        msgspec.structs.replace(naflex, model=model),
        image_files,
        tmp_path,
        r"tower: the image tower gives other vectors",
    )


def _another_order(naflex: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours before places inside a patch, as a convolution's weights have them."""
    add = patches_module.Nodes.__call__

    def call(self: patches_module.Nodes, op: str, *inputs: str, **attributes: object) -> str:
        if attributes.get("perm") == [1, 3, 2, 4, 0]:
            attributes["perm"] = [1, 3, 0, 2, 4]
        return add(self, op, *inputs, **attributes)

    monkeypatch.setattr(patches_module.Nodes, "__call__", call)


def _another_rounding(naflex: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many patches as the area holds, one less where a side is not a whole number of them."""
    add = patches_module.add_patch_grid

    def fewer(nodes: patches_module.Nodes, spec: object, sides: str) -> str:
        return nodes("Max", nodes("Sub", add(nodes, spec, sides), nodes.ints([1, 0])), nodes.ints([1]))

    monkeypatch.setattr("mmalign.pixels.window.add_patch_grid", fewer)


@pytest.mark.parametrize("mutate", [_another_order, _another_rounding])
def test_patches_that_are_cut_otherwise_are_refused(
    mutate: Callable[[Imported, pytest.MonkeyPatch], None],
    saved: Saved,
    image_files: list[GoldenFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naflex = read_source("transformers", saved(FAMILY))
    mutate(naflex, monkeypatch)
    refused(naflex, image_files, tmp_path, r"pixels: '.*' comes out as \(1, 23, 194\) and differs by")


def test_the_source_s_conventions_can_be_taken_over(saved: Saved) -> None:
    assert read_source("transformers", saved(FAMILY)).model.image.spec.alpha == "composited"
    options = SourceOptions(orientation="source", alpha="source", jpeg_oversampling=2)
    spec = read_source("transformers", saved(FAMILY), options).model.image.spec
    assert (spec.orientation, spec.alpha, spec.jpeg_oversampling) == ("ignored", "dropped", 2)
    assert (
        read_source("transformers", saved("clip"), SourceOptions(alpha="source")).model.image.spec.alpha == "composited"
    )
    assert (spec.num_patches, spec.shortest_edge, spec.shape) == (23, 8, (8, 184))

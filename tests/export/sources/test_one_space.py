"""Two imports of one model live in one space, wherever it lay and however its weights were saved; two models do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mmalign.space import space_id
from mmalign_export import import_model
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import SourceOptions, read_source
from mmalign_runtime import Embedder, compat
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import SpaceMismatchError
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.clips import FAMILIES, PREPROCESSING, write
from tests.export.tracing import equal_towers_traced_once

Saved = Callable[[str], Path]
Files = list[GoldenFile]
# One of each way to hold weights: tied or not, a scale and a bias, buffers, a temperature.
_FAMILIES = ("clip", "siglip", "altclip", "blip", "vision-text-dual-encoder")


def space_of(kind: str, place: Path | str, options: SourceOptions | None = None) -> str:
    return space_id(read_source(kind, place, options or SourceOptions()).model)


def as_bin(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: state[name] for name in sorted(state, reverse=True)}, folder / "pytorch_model.bin")


def as_shards(folder: Path) -> None:
    state, index = load_file(folder / "model.safetensors"), {}
    (folder / "model.safetensors").unlink()
    for at in range(2):
        shard = {name: state[name] for name in sorted(state)[at::2]}
        file = f"model-0000{at + 1}-of-00002.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    listed = {"metadata": {"total_size": sum(each.nbytes for each in state.values())}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def with_places_in_the_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part |= {"_name_or_path": "/home/somebody/model", "transformers_version": "4.30.0", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=4))


def with_other_files_beside(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\nAnother card.")
    (folder / "rng_state.pth.txt").write_text("left by a training")


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("change", [as_bin, as_shards, with_places_in_the_configuration, with_other_files_beside])
def test_a_model_of_transformers_has_one_space_however_it_was_saved(
    family: str, change: Callable[[Path], None], saved: Saved, tmp_path: Path
) -> None:
    moved = shutil.copytree(saved(family), tmp_path / "another name")
    change(moved)
    assert space_of("transformers", moved) == space_of("transformers", saved(family))


@pytest.mark.parametrize("family", _FAMILIES)
def test_saving_a_model_again_keeps_its_space(family: str, saved: Saved, tmp_path: Path) -> None:
    again = shutil.copytree(saved(family), tmp_path / "again")
    for part in (transformers.AutoModel, transformers.AutoTokenizer, transformers.AutoImageProcessor):
        if part is not transformers.AutoModel or family != "blip":  # whose AutoModel is another class
            part.from_pretrained(saved(family)).save_pretrained(again)
    assert space_of("transformers", again) == space_of("transformers", saved(family))


def test_links_and_relative_paths_lead_to_one_space(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = space_of("transformers", saved("clip"))
    (tmp_path / "link").symlink_to(saved("clip"))
    (tmp_path / "nested").mkdir()
    monkeypatch.chdir(tmp_path)
    for place in ("link", "./link/", str(tmp_path / "nested" / ".." / "link")):
        assert space_of("transformers", place) == expected


def test_sentence_transformers_and_transformers_read_one_clip(saved: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(saved("clip"), folder / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    assert space_of("sentence_transformers", folder) == space_of("transformers", saved("clip"))


@pytest.mark.parametrize("family", ["vit, quick", "siglip", "xlm-roberta", "coca", "mobileclip"])
def test_a_model_of_open_clip_has_one_space_in_each_kind_of_file(family: str, tmp_path: Path) -> None:
    here = write(tmp_path / "here", family)
    expected = space_of("open_clip", here)
    there = shutil.copytree(here, tmp_path / "there")
    state = load_file(there / "open_clip_model.safetensors")
    (there / "open_clip_model.safetensors").unlink()
    torch.save(state, there / "open_clip_pytorch_model.bin")
    assert space_of("open_clip", f"local-dir:{there}") == expected
    torch.save({"state_dict": {f"module.{name}": each for name, each in state.items()}, "epoch": 1}, there / "last.pth")
    (there / "open_clip_pytorch_model.bin").unlink()
    assert space_of("open_clip", there) == expected


def test_a_file_of_weights_has_the_space_of_the_folder_that_says_the_same_of_it(tmp_path: Path) -> None:
    (tmp_path / "one-space-quickgelu.json").write_text(json.dumps(FAMILIES["vit, quick"]))
    (tmp_path / "one-space.json").write_text(json.dumps({**FAMILIES["vit, quick"], "quick_gelu": False}))
    open_clip.add_model_config(tmp_path)
    folder = write(tmp_path / "folder", "vit, quick")
    weights = shutil.copy(folder / "open_clip_model.safetensors", tmp_path / "weights.safetensors")
    named = SourceOptions(model="one-space-quickgelu")
    said = SourceOptions(model="one-space", activation="quick_gelu")
    expected = space_of("open_clip", folder)
    assert space_of("openai", weights, named) == space_of("openai", weights, said) == expected
    assert space_of("openai", weights, SourceOptions(model="one-space", activation="gelu")) != expected
    assert PREPROCESSING["resize_mode"] == "shortest"  # open_clip's default, so that the folder says nothing else


@pytest.mark.parametrize(
    ("family", "part", "changed"),
    [
        ("align", "vision_config", {"batch_norm_eps": 0.5}),
        ("align", "vision_config", {"pooling_type": "max"}),
        ("groupvit", "vision_config", {"assign_eps": 9.0}),
        ("tipsv2", "text_config", {"scale_sqrt_depth": False}),
    ],
)
def test_a_configuration_that_moves_vectors_of_the_same_weights_makes_another_space(
    family: str, part: str, changed: dict[str, object], saved: Saved, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved(family), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config[part] |= changed
    (folder / "config.json").write_text(json.dumps(config))
    usual, other = (read_source("transformers", each).model for each in (saved(family), folder))
    name = "image" if part == "vision_config" else "text"
    given = usual.towers[name].example().inputs
    with torch.inference_mode():
        moved = usual.towers[name].module(*given) - other.towers[name].module(*given)
    assert moved.abs().max() > 1e-4
    assert space_id(other) != space_id(usual)


def test_what_moves_no_vector_is_not_in_the_space_and_what_does_is(saved: Saved, tmp_path: Path) -> None:
    expected = space_of("transformers", saved("clip"))
    assert space_of("transformers", saved("clip"), SourceOptions(licence="mit")) == expected
    assert space_of("transformers", saved("clip"), SourceOptions(orientation="source")) != expected
    halved = shutil.copytree(saved("clip"), tmp_path / "half")
    state = load_file(halved / "model.safetensors")
    save_file(
        {name: each.half() if each.is_floating_point() else each for name, each in state.items()},
        halved / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert space_of("transformers", halved) != expected
    name = sorted(name for name, each in state.items() if each.ndim == 2)[0]
    state[name].view(-1)[0] += 1e-3
    save_file(state, halved / "model.safetensors", metadata={"format": "pt"})
    assert space_of("transformers", halved) != expected


def test_bundles_of_two_imports_of_one_model_are_compatible_and_of_another_are_not(
    saved: Saved, image_files: Files, tmp_path: Path
) -> None:
    moved = shutil.copytree(saved("clip"), tmp_path / "moved")
    as_bin(moved)
    with equal_towers_traced_once():
        here = import_model(saved("clip"), tmp_path / "here", image_files=image_files)
    there = import_model(moved, tmp_path / "there.mmalign", image_files=image_files)
    assert here.space_id == there.space_id
    assert here.variant_id("fp32") == there.variant_id("fp32")
    assert here.provenance.source.files.keys() != there.provenance.source.files.keys()
    left, right = open_bundle(tmp_path / "here"), open_bundle(tmp_path / "there.mmalign")
    assert compat(left, right).is_same_space
    report = verify_bundle(tmp_path / "here", against=tmp_path / "there.mmalign", provider="cpu")
    assert report.passed
    assert report.against is not None
    assert (report.against.is_same_space, report.against.max_abs_difference) == (True, 0.0)
    with Embedder.load(tmp_path / "here") as first, Embedder.load(tmp_path / "there.mmalign") as second:
        np.testing.assert_array_equal(first.encode_text(["a dog"]), second.encode_text(["a dog"]))

    other = shutil.copytree(saved("clip"), tmp_path / "other model")
    state = load_file(other / "model.safetensors")
    state["visual_projection.weight"] *= torch.linspace(0.5, 2.0, len(state["visual_projection.weight"]))[:, None]
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    with equal_towers_traced_once():  # its text tower is the same one
        import_model(other, tmp_path / "other", image_files=image_files)
    found = compat(left, open_bundle(tmp_path / "other"))
    assert not found
    with pytest.raises(SpaceMismatchError, match="mmalign embed BUNDLE INPUT --out FILE --force"):
        found.require()
    against = verify_bundle(tmp_path / "here", against=tmp_path / "other", provider="cpu").against
    assert against is not None
    assert not against.is_same_space
    assert not against.passed

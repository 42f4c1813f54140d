"""Broken folders of open_clip, each refused with what is wrong: its own loader draws at random, resizes or drops."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign_export import import_model
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions, read_source
from mmalign_runtime.errors import MissingDependencyError
from tests.export.sources.clips import CLIP, FAMILIES, build, save

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
State = dict[str, torch.Tensor]
COCA = FAMILIES["coca"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("broken") / "model", CLIP, build(CLIP))


def weights(change: Callable[[State], object]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return break_it


def config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        found = json.loads((folder / CONFIG).read_text())
        change(found)
        (folder / CONFIG).write_text(json.dumps(found))

    return break_it


def fewer_positions(state: State) -> None:
    state["visual.positional_embedding"] = state["visual.positional_embedding"][:10].clone()


def other_context(found: dict) -> None:
    found["model_cfg"]["text_cfg"]["context_length"] = 50


def not_finite(state: State) -> None:
    state["ln_final.weight"][3] = torch.nan


def as_int8(state: State) -> None:
    state.update({name: (tensor * 10).to(torch.int8) for name, tensor in state.items()})


def no_head(state: State) -> None:
    state["visual.proj"].zero_()


def twice(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    torch.save(state | {"visual.proj": state["visual.proj"] + 1}, folder / "open_clip_pytorch_model.bin")


def two_files(folder: Path) -> None:
    for name in ("a.bin", "b.bin"):
        shutil.copy(folder / WEIGHTS, folder / name)
    (folder / WEIGHTS).unlink()


def alike(state: State) -> None:
    for name, tensor in state.items():
        if (name.endswith("weight") and tensor.ndim > 1) or name.endswith("embedding"):
            tensor.mul_(1e-4)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a dropped tensor": (weights(lambda state: state.pop("ln_final.bias")), r"1 missing \(ln_final\.bias\)"),
    "a surplus tensor": (weights(lambda state: state.update(x=torch.ones(2))), r"1 surplus \(x\)"),
    "a surplus bias": (weights(lambda s: s.update(logit_bias=torch.ones(()))), r"1 surplus \(logit_bias\)"),
    "positions to be resized": (weights(fewer_positions), r"of another shape \(visual\.positional_embedding\)"),
    "a context to be resized": (config(other_context), r"of another shape \(positional_embedding\)"),
    "weights of another width": (config(lambda c: c["model_cfg"].update(embed_dim=8)), "of another shape"),
    "weights that are not finite": (weights(not_finite), "ln_final.weight holds values that are not finite"),
    "weights of eight bits": (weights(as_int8), r"of its tensors are of int8 .* Quantized weights are not read"),
    "a head of zeros": (weights(no_head), r"the image tower gives vectors of lengths 0\.0 to 0\.0"),
    "weights twice, and not the same": (twice, r"open_clip_pytorch_model\.bin, and they differ \(in visual\.proj\)"),
    "patches of no size": (config(lambda c: c["model_cfg"]["vision_cfg"].update(patch_size=0)), "cannot build .*Zero"),
    "a deviation of zero": (config(lambda c: c["preprocess_cfg"].update(std=[0, 1, 1])), "divides by a number that is"),
    "a fill that is no level": (
        config(lambda c: c["preprocess_cfg"].update(resize_mode="longest", fill_color=[1, 2, 3])),
        r"cannot be written as a graph: Expected .* at `\$\.fill",
    ),
    "a mean that is not a number": (
        config(lambda c: c["preprocess_cfg"].update(mean=[float("nan"), 1, 1])),
        "have to be finite",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds these weights: none"),
    "two files of weights": (two_files, "holds these weights: a.bin, b.bin"),
    "weights cut off": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000]),
        "not a whole safetensors file",
    ),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "open_clip_config.json is not there"),
    "a configuration that is not JSON": (lambda folder: (folder / CONFIG).write_text("{"), "is not JSON"),
    "text alone": (config(lambda c: c["model_cfg"].pop("vision_cfg")), "has vision_cfg=None; expected an object"),
    "an unknown setting": (
        config(lambda c: c["model_cfg"]["text_cfg"].update(colour=1)),
        "cannot build .* unexpected keyword argument 'colour'",
    ),
    "an unknown model of timm": (
        config(lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="vit_of_nobody")),
        "cannot build .*vit_of_nobody",
    ),
    "an unknown interpolation": (
        config(lambda c: c["preprocess_cfg"].update(interpolation="nearest")),
        "interpolation 'nearest'",
    ),
    "an unknown setting of the tokenizer": (
        config(lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"colour": 1})),
        r"tokenizer does not take \{'colour': 1\}",
    ),
    "a mean of two colours": (config(lambda c: c["preprocess_cfg"].update(mean=[0.5, 0.5])), "three numbers, or one"),
    "an unknown resize": (config(lambda c: c["preprocess_cfg"].update(resize_mode="fit")), "resize_mode 'fit'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_and_nothing_is_left(name: str, whole: Path, tmp_path: Path) -> None:
    break_it, message = BROKEN[name]
    folder = shutil.copytree(whole, tmp_path / "model")
    break_it(folder)
    with pytest.raises(SourceError, match=message):
        import_model(f"local-dir:{folder}", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_pooling_that_gives_no_vector_is_refused_by_name(tmp_path: Path) -> None:
    """CoCa's "cascade": what open_clip says of it is that it is not tested."""
    cascade = {**COCA, "vision_cfg": {**COCA["vision_cfg"], "attentional_pool": "cascade"}}
    folder = save(tmp_path / "model", cascade, build(cascade))
    with pytest.raises(SourceError, match=r"the image tower (gives a tensor|cannot take pixel_values)"):
        read_source("open_clip", folder)


def test_a_place_that_is_not_there_and_a_hub_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"ViT-B-32 is neither a folder .* with --model NAME"):
        read_source("open_clip", "ViT-B-32")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="hf-hub:nobody/nothing cannot be fetched"):
        read_source("open_clip", "hf-hub:nobody/nothing")


def test_a_library_that_is_not_there_names_its_extra(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-export\[open-clip\]'"):
        read_source("open_clip", whole)


def test_an_option_that_a_folder_does_not_read_is_refused(whole: Path) -> None:
    """A folder says its architecture: another one beside it would be ignored without a word."""
    with pytest.raises(SourceError, match="does not read model; it reads alpha, jpeg_oversampling"):
        read_source("open_clip", whole, SourceOptions(model="ViT-B-32"))

"""Files of weights alone: what they do not say is asked for, and no code in them is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.detect import detect_source
from mmalign_export.sources.state_dicts import read_state
from mmalign_export.sources.torchscript import read_torchscript
from tests.export.sources.clips import CLIP, build, save_torchscript

NAMED = {"tiny": CLIP, "tiny-quickgelu": {**CLIP, "quick_gelu": True}, "lonely": CLIP}


@pytest.fixture(scope="module", autouse=True)
def named_configs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let open_clip know tiny models by name, as it knows ViT-B-32."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in NAMED.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return build(NAMED["tiny-quickgelu"])


def as_state_dict(module: nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def as_checkpoint(module: nn.Module, path: Path) -> Path:
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def as_compiled(module: nn.Module, path: Path) -> Path:
    torch.save({f"_orig_mod.module.{name}": tensor for name, tensor in module.state_dict().items()}, path)
    return path


def as_safetensors(module: nn.Module, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("write", [as_state_dict, as_checkpoint, as_compiled])
def test_weights_in_every_wrapping_are_the_models(
    write: Callable[[nn.Module, Path], Path], module: nn.Module, tmp_path: Path
) -> None:
    path = write(module, tmp_path / "weights.pt")
    assert detect_source(str(path)) == ("openai", str(path))
    imported = read_source("openai", path, SourceOptions(model="tiny-quickgelu"))
    assert imported.original is not None
    texts = ["a dog", "a cat on the sofa"]
    expected = imported.original.text_vectors(texts)
    with torch.inference_mode():
        np.testing.assert_allclose(expected, module.encode_text(open_clip.tokenize(texts)), atol=1e-5)
    np.testing.assert_allclose(imported.model.text.embed(texts), unit(expected), atol=1e-6)
    assert imported.model.origin.kind == "openai"


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_torchscript_archive_is_read_and_not_run(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_torchscript(module, tmp_path / "ViT-tiny.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    state = read_torchscript(path)
    extra = {"input_resolution", "context_length", "vocab_size"}
    assert {name: tensor.tolist() for name, tensor in state.items() if name in extra} == dict.fromkeys(extra, 77)
    expected = module.state_dict()
    assert state.keys() == expected.keys() | extra
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert "input_resolution" not in read_state(path)


def test_half_precision_is_computed_in_float32(module: nn.Module, tmp_path: Path) -> None:
    path = as_safetensors(module, tmp_path / "weights")
    imported = read_source("openai", path, SourceOptions(model="tiny-quickgelu"))
    assert {tensor.dtype for tensor in imported.model.text.backbone.parameters()} == {torch.float32}
    expected = imported.original.text_vectors(["a dog"])
    np.testing.assert_allclose(imported.model.text.embed(["a dog"]), unit(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SourceOptions(), "do not say how many heads .* no --model was given"),
        (SourceOptions(model="ViT-Z-1"), "--model ViT-Z-1 was given; expected one of open_clip.list_models"),
        (SourceOptions(model="tiny"), "do not say which. Add --activation gelu or --activation quick_gelu"),
        (SourceOptions(model="tiny-quickgelu", activation="gelu"), "with QuickGELU, and --activation gelu was given"),
        (SourceOptions(model="ViT-L-14", activation="gelu"), "different preprocessing.*--model ViT-L-14:TAG"),
        (SourceOptions(model="lonely:laion"), "open_clip has no weights 'laion' of lonely"),
    ],
)
def test_what_weights_do_not_say_is_asked_for(
    options: SourceOptions, message: str, module: nn.Module, tmp_path: Path
) -> None:
    path = as_state_dict(module, tmp_path / "weights.pt")
    with pytest.raises(SourceError, match=message):
        read_source("openai", path, options)


def test_the_activation_that_is_said_is_computed(module: nn.Module, tmp_path: Path) -> None:
    path = as_state_dict(module, tmp_path / "weights.pt")
    quick, other, named = (
        read_source("openai", path, options).model.text.embed(["a dog"])
        for options in (
            SourceOptions(model="tiny", activation="quick_gelu"),
            SourceOptions(model="tiny", activation="gelu"),
            SourceOptions(model="tiny-quickgelu"),
        )
    )
    np.testing.assert_array_equal(quick, named)
    assert np.abs(quick - other).max() > 1e-4


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code was run')",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def scripted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("model/constants.pkl", b"")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def numbers(path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, path)


def by_number(path: Path) -> None:
    torch.save({1: torch.zeros(2)}, path)


def sparse(path: Path) -> None:
    torch.save({"visual.proj": torch.eye(3).to_sparse()}, path)


def without_values(path: Path) -> None:
    torch.save({"visual.proj": torch.zeros(2, device="meta")}, path)


def wrapped_and_not(path: Path) -> None:
    torch.save({"visual.proj": torch.zeros(2), "module.visual.proj": torch.ones(2)}, path)


def averaged_too(path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.zeros(2)}, "ema": {"a": torch.ones(2)}}, path)


def in_a_circle(path: Path) -> None:
    """A module of an archive that holds itself."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02c__torch__.X\nY\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.")
        archive.writestr("model/constants.pkl", b"")


def cut_off(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (pickled, "cannot be read as weights alone"),
        (scripted, "not a TorchScript archive of weights: it names builtins.exec"),
        (empty, "is empty"),
        (pointer, "pointer of Git LFS"),
        (numbers, "holds epoch, loss, and no tensors by name"),
        (by_number, "holds 1, and no tensors by name"),
        (sparse, r"visual\.proj is of the layout torch\.sparse_coo"),
        (without_values, r"visual\.proj is without values \(meta\)"),
        (wrapped_and_not, "both with and without `module\\.`"),
        (averaged_too, r"weights of several models \(state_dict, ema\)"),
        (in_a_circle, "not a TorchScript archive of weights: maximum recursion depth"),
        (cut_off, "cannot be read as weights alone"),
    ],
)
def test_a_broken_file_is_refused_and_not_run(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "weights.pt")
    with pytest.raises(SourceError, match=message):
        read_source("openai", tmp_path / "weights.pt", SourceOptions(model="tiny", activation="gelu"))

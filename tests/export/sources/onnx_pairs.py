"""Tiny pairs of ONNX files in every layout that people have, made of the tests' tiny models."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import transformers
from torch import Tensor, nn


class _Images(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model.vision_model(pixel_values=pixel_values)
        projection = getattr(self.model, "visual_projection", nn.Identity())
        return projection(found.pooler_output), found.last_hidden_state


class _Texts(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = {} if attention_mask is None else {"attention_mask": attention_mask}
        found = self.model.text_model(input_ids=input_ids, **given)
        projection = getattr(self.model, "text_projection", nn.Identity())
        return projection(found.pooler_output), found.last_hidden_state


class _Unit(nn.Module):
    """As immich exports: one vector of unit length."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, given: Tensor) -> Tensor:
        vector: Tensor = self.tower(given)[0]
        return nn.functional.normalize(vector, dim=-1)


def save_transformers_js(source: Path, folder: Path, vector: str = "") -> Path:
    """Write onnx/text_model.onnx, onnx/vision_model.onnx and the configurations of a folder that transformers saved."""
    model = _load(source)
    _copy_configurations(source, folder)
    (folder / "onnx").mkdir()
    export_images(model, folder / "onnx/vision_model.onnx", vector or "image_embeds")
    export_texts(model, folder / "onnx/text_model.onnx", vector or "text_embeds", has_mask=False)
    return folder


def save_two_folders(source: Path, folder: Path) -> tuple[Path, Path]:
    """Write two folders with a model.onnx each, the text tower with a mask, as fastembed and Qdrant have them."""
    model = _load(source)
    images, texts = folder / "clip-vision", folder / "clip-text"
    for each in (images, texts):
        _copy_configurations(source, each)
    (texts / "preprocessor_config.json").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (images / name).unlink()
    export_images(model, images / "model.onnx", "image_embeds")
    export_texts(model, texts / "model.onnx", "text_embeds", has_mask=True)
    return images, texts


def save_immich(source: Path, folder: Path) -> Path:
    """Write visual/ and textual/ with graphs of one item, ids of int32, and open_clip's configurations."""
    model = _load(source)
    for name in ("visual", "textual"):
        (folder / name).mkdir(parents=True)
    processor = json.loads((source / "preprocessor_config.json").read_text())
    side, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    preprocessing = {
        "size": [side, side],
        "mode": "RGB",
        "mean": processor["image_mean"],
        "std": processor["image_std"],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    (folder / "visual/preprocess_cfg.json").write_text(json.dumps(preprocessing))
    (folder / "config.json").write_text(json.dumps({"text_cfg": {"context_length": length}}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / "textual" / name)
    pixels = torch.randn(1, 3, side, side)
    _export(_Unit(_Images(model)), (pixels,), folder / "visual/model.onnx", ["image"], ["embedding"])
    ids = torch.ones(1, length, dtype=torch.int32)
    _export(_Unit(_Texts(model)), (ids,), folder / "textual/model.onnx", ["text"], ["embedding"])
    return folder


def export_images(model: transformers.PreTrainedModel, path: Path, vector: str) -> None:
    axes = {"pixel_values": {0: "batch_size"}}
    names = [vector, "last_hidden_state"]
    side = model.config.vision_config.image_size
    _export(_Images(model), (torch.randn(2, 3, side, side),), path, ["pixel_values"], names, axes)


def export_texts(model: nn.Module, path: Path, vector: str, *, has_mask: bool) -> None:
    axes = {0: "batch_size", 1: "sequence_length"}
    inputs = ["input_ids", *(["attention_mask"] if has_mask else [])]
    example = torch.ones(2, 7, dtype=torch.int64)
    names = [vector, "last_hidden_state"]
    _export(_Texts(model), (example,) * len(inputs), path, inputs, names, dict.fromkeys(inputs, axes))


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]] | None = None,
) -> None:
    """Export as these pairs were: by torch's older exporter, which writes opset 14."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter that is on its way out, and of traced conditions
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=14,
        )


def _load(source: Path) -> transformers.PreTrainedModel:
    found = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    return cast("transformers.PreTrainedModel", found)


def _copy_configurations(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in source.glob("*.json"):
        shutil.copy(path, folder / path.name)

"""Tiny models of open_clip, with weights so spread out that vectors differ, saved as open_clip saves them."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import safetensors.torch
import torch
from torch import nn

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
PREPROCESSING = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build(config: dict) -> nn.Module:
    """Return open_clip's module of a configuration, spread out: drawn so that no two inputs have similar vectors."""
    config = json.loads(json.dumps(config))
    has_own_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CLIP if not has_own_text else open_clip.CustomTextCLIP
    kind = open_clip.CoCa if "multimodal_cfg" in config else kind
    torch.manual_seed(0)
    return spread(kind(**config)).eval()


def spread(module: nn.Module) -> nn.Module:
    """Give every parameter of a module a value of its own, large enough to matter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            continue
        fan_in = parameter.shape[1:].numel() if parameter.ndim > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator)
        is_scale = parameter.ndim == 1 and name.endswith(("weight", "gamma"))
        std = 0.2 if parameter.ndim < 2 else 0.7 if "embedding" in name or "pos_embed" in name else 1.3 * fan_in**-0.5
        parameter.data = noise * std + (1.0 if is_scale else 0.0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.copy_(torch.randn(each.running_mean.shape, generator=generator) * 0.1)
            each.running_var.copy_(torch.rand(each.running_var.shape, generator=generator) + 0.5)
    return module


def save(folder: Path, config: dict, module: nn.Module, preprocessing: dict | None = None) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors."""
    folder.mkdir(exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESSING if preprocessing is None else preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return folder

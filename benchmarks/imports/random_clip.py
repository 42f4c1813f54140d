"""A model of open_clip at its real size with weights drawn from a seed, saved as open_clip saves one.

Times and memory do not depend on what the weights are; parity does, so that they are spread out until no two inputs
have similar vectors.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import open_clip
import safetensors.torch
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from benchmarks.imports.settling import STEP, settle, settling_pictures

_PREPROCESSING = {
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_random(name: str, folder: Path) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors of a built-in model; keep a folder that has them."""
    weights = folder / "open_clip_model.safetensors"
    if weights.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = open_clip.get_model_config(name)
    module = _build(config)
    generator = torch.Generator().manual_seed(0)
    module.load_state_dict({key: _drawn(key, tensor, generator) for key, tensor in module.state_dict().items()})
    if any(isinstance(each, nn.BatchNorm2d) for each in module.modules()):
        given = open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"], **_PREPROCESSING)
        transform = open_clip.transform.image_transform_v2(given, is_train=False)
        pixels = torch.stack([transform(picture) for picture in settling_pictures()])
        settle(module, lambda: module.encode_image(pixels))
    safetensors.torch.save_file(module.state_dict(), weights)
    described = {"model_cfg": config, "preprocess_cfg": _PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def _build(config: dict[str, object]) -> nn.Module:
    given = copy.deepcopy(config)
    has_own_text = given.pop("custom_text", False)
    kind = open_clip.CLIP if not has_own_text else open_clip.CustomTextCLIP
    return (open_clip.CoCa if "multimodal_cfg" in given else kind)(**given)


def _drawn(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if name in ("logit_scale", "logit_bias") or not tensor.is_floating_point():
        return tensor.clone()
    noise = torch.randn(tensor.shape, generator=generator)
    if name.endswith("gamma"):  # of what a block adds to its skip path
        return (noise.clamp(-3, 3) * 0.1 + 1.0) * STEP
    if tensor.ndim < 2:
        is_scale = name.endswith(("weight", "running_var"))
        return noise.clamp(-3, 3) * 0.1 + (1.0 if is_scale else 0.0)
    return noise * (0.5 if "embedding" in name else float(tensor.shape[1:].numel()) ** -0.5)

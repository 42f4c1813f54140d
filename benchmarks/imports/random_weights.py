"""Random weights as training leaves them, and a model of open_clip at its real size with such weights.

Times and memory do not depend on what the weights are; parity does, so that they are spread out until no two inputs
have similar vectors, with small steps on the skip path, and batch norms that know pictures.

Without the statistics, ALIGN's 55 blocks make all vectors alike. With every block's step as large as what it is added
to, a deep tower amplifies rounding until a picture is half a cosine from itself in float64 (ALIGN), or a flat one moves
by 1e-3 a component with another order of sums (MobileCLIP2-S0): such a tower is chaotic, as no trained one is, whose
residual blocks begin at a step of zero (Goyal et al. 2017) and stay small.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import safetensors.torch
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor, nn

from mmalign_export.golden import golden_photo

_PREPROCESSING = {
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# What a block adds to its skip path, of what a norm gives.
STEP = 0.25
# Where parts of a photograph begin, in pixels.
_CORNERS = (0, 60, 120)


def settling_pictures() -> list[Image.Image]:
    """Return parts of a photograph, the same dithered and of one colour, and noise."""
    photo = golden_photo()
    parts = [photo.crop((x, y, x + photo.width // 2, y + photo.height // 2)) for x in _CORNERS for y in _CORNERS]
    drawn = np.random.default_rng(0).integers(0, 256, (len(parts), 8, 8, 3), np.uint8)
    dithered = [part.convert("1").convert("RGB") for part in parts]
    flat = [part.resize((1, 1)) for part in parts]
    return [*parts, *dithered, *flat, *(Image.fromarray(each).resize(photo.size) for each in drawn)]


@torch.no_grad()
def settle(model: nn.Module, look: Callable[[], object]) -> None:
    """Give a model's batch norms the statistics of the pictures that `look` runs through it; leave it evaluating."""
    model.eval()  # no dropout, which would move the statistics
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean of all that is seen
            norm.reset_running_stats()
            norm.train()
    look()
    model.eval()


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

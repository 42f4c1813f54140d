"""Image towers: a backbone without its classifier, from pixel_values to features.

Shapes: B batch, S image side, F features.
"""

from __future__ import annotations

import difflib
import logging
import pickle
from pathlib import Path
from typing import Annotated, cast

import msgspec
import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmalign._compat import quiet_loading
from mmalign.errors import ConfigError, WeightsError
from mmalign.imported import ImportedImageTower, imported_image_tower, is_imported
from mmalign.towers.additions import is_added
from mmalign.towers.lora import LoraConfig
from mmalign.towers.weights import PYPI_PREFIX, packaged_file

logger = logging.getLogger(__name__)

TIMM_PREFIX = "timm:"
# The published features of torchvision's ResNet-50 (He et al. 2015): the 2048 channels before its classifier.
_RESNET50_FEATURES = 2048
# What a run calls the tensors of its image tower.
_IN_RUN = "image_tower.backbone."
_DAMAGED = "its weights are damaged. Fetch them again, or set image_tower.weights to others."
# Of the largest feature: trained backbones tell noise from black by a tenth and more.
_CONSTANT = 1e-6
# What torch.load and safetensors raise on files that are damaged or no state dict.
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError)


class ImageTowerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which image tower, and what its weights are.

    Attributes:
        name: "resnet50", "timm:NAME" for any timm backbone, "pypi:PACKAGE" for one that `packages` describes, or
            "import:PLACE" for that of a dual encoder that `mmalign import` reads, with its projection.
        weights: "pretrained"; "random", which is never chosen by default; "pypi:PACKAGE"; or a path: of a state dict
            (.safetensors or .pth), or of a run's folder, whose best image tower this one begins with.
        frozen: Whether the tower stays as it is and only its projection is trained.
        frozen_blocks: How many of the tower's blocks stay as they are, counted from its input, with what stands before
            them. 0: none.
        lora: Adapters that learn in the place of the tower's weights. For towers with linear layers, as ViTs have.
    """

    name: str = "resnet50"
    weights: str = "pretrained"
    frozen: bool = False
    frozen_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    lora: LoraConfig = LoraConfig()

    def __post_init__(self) -> None:
        """Raise ValueError for adapters in a frozen tower."""
        self.lora.check(frozen=self.frozen)


class ImageTower(nn.Module):
    """A backbone, (B, 3, S, S) float32 -> (B, F) float32."""

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        return cast("Tensor", self.backbone(pixel_values))  # (B, F)


def create_image_tower(name: str) -> ImageTower | ImportedImageTower:
    """Return the tower of that name, with random weights but for an import, which is read anew.

    Raises ConfigError when the name is not known, and as `read_imported`.
    """
    if is_imported(name):
        return imported_image_tower(name)[0]
    if name == "resnet50":
        backbone = torchvision.models.resnet50(weights=None)
        backbone.fc = nn.Identity()
        return ImageTower(backbone, _RESNET50_FEATURES)
    if name.startswith(TIMM_PREFIX):
        return _timm_tower(name.removeprefix(TIMM_PREFIX), pretrained=False)
    raise ConfigError(f"image tower {name!r} is not known: use 'resnet50', 'timm:NAME' or 'import:PLACE'.")


def load_image_tower(config: ImageTowerConfig) -> ImageTower | ImportedImageTower:
    """Return the tower with the weights that the configuration names.

    Raises WeightsError, saying how to get them, when they are not here and cannot be fetched, or do not fit.
    """
    logger.info("loading image tower %s, weights %s", config.name, config.weights)
    if config.weights == "pretrained" and config.name.startswith(TIMM_PREFIX):
        return _timm_tower(config.name.removeprefix(TIMM_PREFIX), pretrained=True)
    tower = create_image_tower(config.name)
    if isinstance(tower, ImportedImageTower):
        if config.weights != "pretrained":
            raise ConfigError(f"image_tower.name is {config.name!r}, which has weights. Leave out image_tower.weights.")
        return tower
    if config.weights == "random":
        return tower
    if config.weights == "pretrained":
        _load_state(tower.backbone, _fetch_resnet50(), config.name)
    elif config.weights.startswith(PYPI_PREFIX):
        path = packaged_file(config.weights.removeprefix(PYPI_PREFIX))
        _load_state(tower.backbone, _in_order(tower.backbone, _read_state(path)), config.weights)
    else:
        _load_state(tower.backbone, _read_state(Path(config.weights)), config.weights)
    return tower


def check_image_tower(tower: ImageTower | ImportedImageTower, shape: tuple[int, int], *, is_trained: bool) -> None:
    """Run two images of `shape` (H, W) through a tower.

    Raises ConfigError when it takes another size or gives no pooled features, and WeightsError when features are not
    finite or, of weights that are trained, the same for both images. Random weights may tell images apart too little.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([torch.zeros(1, 3, *shape), torch.randn(1, 3, *shape, generator=generator)])
    was_training = tower.training
    try:
        with torch.inference_mode():
            features: object = tower.eval()(images)  # (2, F)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"the image tower does not take images of {shape[1]} x {shape[0]} pixels: {error}. Set image.size."
        ) from error
    finally:
        tower.train(was_training)
    seen = tuple(features.shape[1:]) if isinstance(features, Tensor) else type(features).__name__
    if not isinstance(features, Tensor) or seen != (tower.feature_dim,):
        raise ConfigError(
            f"the image tower gives features of shape {seen}, expected ({tower.feature_dim},). "
            "Choose a backbone that pools its features."
        )
    largest = features.abs().max()
    if not features.isfinite().all():
        raise WeightsError(f"the image tower gives features that are not finite: {_DAMAGED}")
    if is_trained and (features[0] - features[1]).abs().max() <= _CONSTANT * largest:
        raise WeightsError(f"the image tower gives two images that differ the same features: {_DAMAGED}")


def _timm_tower(name: str, *, pretrained: bool) -> ImageTower:
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)) or "timm.list_models()"
        raise ConfigError(f"timm has no backbone {name!r}; the nearest: {near}.")
    try:
        with quiet_loading():
            backbone = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise WeightsError(_how_to_fetch(name, "timm", error)) from error
    # Some backbones (MobileNetV3) keep a layer between their last map and the classifier, and give its width.
    return ImageTower(backbone, cast("int", getattr(backbone, "head_hidden_size", None) or backbone.num_features))


def _fetch_resnet50() -> dict[str, Tensor]:
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    try:
        return cast("dict[str, Tensor]", weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(_how_to_fetch("resnet50", f"torchvision ({weights.url})", error)) from error


def _how_to_fetch(name: str, origin: str, error: Exception) -> str:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"the pretrained weights of {name} could not be fetched from {origin}: {first_line}. Fetch them on a machine "
        "with a network and set image_tower.weights to the file, or set image_tower.weights = "
        '"random" to start untrained.'
    )


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        return _tower_of_run(path)
    if not path.is_file():
        raise WeightsError(f"image_tower.weights: there is no file {path}. Give a file, 'pretrained' or 'random'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return cast("dict[str, Tensor]", torch.load(path, weights_only=True, map_location="cpu"))
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is not a state dict: {reason}. Give a .safetensors file or a .pth one.") from error


def _tower_of_run(run: Path) -> dict[str, Tensor]:
    state = _read_state(run / "best.safetensors")
    tower = {name.removeprefix(_IN_RUN): tensor for name, tensor in state.items() if name.startswith(_IN_RUN)}
    if not tower:
        raise WeightsError(f"{run} has no image tower of its own: it was frozen. Give the weights that it began with.")
    if any(map(is_added, tower)):
        raise WeightsError(
            f'{run} has adapters and not an image tower of its own. Set image_tower.name = "import:{run}", where they '
            "are merged."
        )
    return tower


def _load_state(backbone: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state dict; of what the backbone lacks only the classifier may be left over."""
    wanted = backbone.state_dict()
    missing = [name for name, tensor in wanted.items() if name not in state or state[name].shape != tensor.shape]
    left_over = [name for name in state if name not in wanted and not name.startswith(_classifiers(backbone))]
    if missing or left_over:
        raise WeightsError(
            f"{origin} does not fit the image tower: {len(missing)} tensors are missing or of another shape "
            f"({', '.join(missing[:3])}), {len(left_over)} are unknown ({', '.join(left_over[:3])}). "
            "Set image_tower.name to the backbone that the file was made for."
        )
    backbone.load_state_dict({name: state[name] for name in wanted})


def _classifiers(backbone: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of a backbone's classifier: timm says it, torchvision's ResNet has `fc`."""
    settings = cast("dict[str, object]", getattr(backbone, "pretrained_cfg", {}))
    named = settings.get("classifier", "fc")
    return tuple(f"{name}." for name in (named if isinstance(named, tuple | list) else (named,)))


def _in_order(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a packaged state dict under the backbone's names, its classifier left out, where order and shapes agree.

    A package may predate timm's port of the same network, as EfficientNet-Lite0's does; the test compares both with the
    network as published.
    """
    wanted = backbone.state_dict()
    tensors = list(state.values())[: len(wanted)]
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in wanted.values()]:
        return state
    return dict(zip(wanted, tensors, strict=True))

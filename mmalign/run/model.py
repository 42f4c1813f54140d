"""A training run as the model that is evaluated, exported and quantized."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from mmalign.config import Config
from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, TextModelTower
from mmalign.imported import ImportedImageTower, ImportedTextTower
from mmalign.model import DualEncoder
from mmalign.model.attention_graphs import model_attention
from mmalign.run import Run, describe_encoder
from mmalign.signature import image_inputs, text_inputs
from mmalign.towers.vision import ImageTower
from mmalign.towers.weights import PYPI_PREFIX
from mmalign_runtime.spec import ImageSpec, TextSpec

_LIBRARIES = ("mmalign", "torch", "transformers", "timm")


def dual_model(run: Run) -> DualModel:
    """Return a run's model, its weights shared with the run: as they learn, its vectors change."""
    config, model = run.config, run.model
    image = image_model_tower(model, config.image, config.image_tower.name)
    text = text_model_tower(model, config.text, run.tokenizer, config.text_tower.name)
    similarity = model.loss.similarity()
    return DualModel(
        towers={"image": image, "text": text},
        similarity=similarity,
        origin=_origin(run),
        prefix_dims=config.prefix_dims,
        attention=model_attention(model, config.image),
    )


def image_model_tower(model: DualEncoder, spec: ImageSpec, architecture: str) -> ImageModelTower:
    """Return the image side of an encoder that mmalign trains."""
    return ImageModelTower(
        backbone=model.image_tower,
        projection=model.image_projection,
        feature_dim=model.image_tower.feature_dim,
        embed_dim=model.config.embed_dim,
        inputs=image_inputs(spec),
        architecture=architecture,
        definition=_definition(model.image_tower),
        description=_describe_image_tower(model.image_tower, architecture),
        spec=spec,
    )


def text_model_tower(model: DualEncoder, spec: TextSpec, tokenizer: Tokenizer, architecture: str) -> TextModelTower:
    """Return the text side of an encoder that mmalign trains."""
    tower = model.text_tower
    return TextModelTower(
        backbone=tower,
        projection=model.text_projection,
        feature_dim=tower.feature_dim,
        embed_dim=model.config.embed_dim,
        inputs=tower.inputs if isinstance(tower, ImportedTextTower) else text_inputs(spec),
        architecture=architecture,
        definition=tower.definition(),
        description={} if isinstance(tower, ImportedTextTower) else describe_encoder(tower),
        spec=spec,
        tokenizer=tokenizer,
    )


def _origin(run: Run) -> ModelOrigin:
    data = run.config.data
    return ModelOrigin(
        kind="run",
        library="mmalign",
        name=run.folder.path.resolve().name,
        versions={name: version(name) for name in _LIBRARIES},
        weights_licence=_weights_licence(run.config),
        data=tuple(Path(source.path).name for source in (*data.sources, *data.held_out)),
    )


def _weights_licence(config: Config) -> str:
    names = {PYPI_PREFIX + package: entry.licence for package, entry in config.packages.items()}
    towers = (config.image_tower.weights, config.text_tower.name)
    licences = sorted({f"{name}: {names[name]}" for name in towers if name in names})
    return "; ".join(licences) or "unknown: see the origin of the pretrained weights"


def _definition(tower: ImageTower | ImportedImageTower) -> str:
    """Return nothing for a tower of mmalign's own, so that runs keep the space ids that they always had."""
    return tower.definition() if isinstance(tower, ImportedImageTower) else ""


def _describe_image_tower(tower: ImageTower | ImportedImageTower, name: str) -> dict[str, object]:
    """Describe an image tower as transformers' wrapper of timm; torchvision's ResNet-50 has the same name there.

    `hidden_size` is what VisionTextDualEncoderModel asks for: without a description it would take a ViT for granted.
    """
    if isinstance(tower, ImportedImageTower):
        return {}
    settings = cast("dict[str, str]", getattr(tower.backbone, "pretrained_cfg", {}))
    architecture = settings.get("architecture", name)
    return {"model_type": "timm_wrapper", "architecture": architecture, "hidden_size": tower.feature_dim}

"""Heads that begin as the closed-form linear map, so that training starts where that baseline ends.

The map takes standardized image features to standardized text features. Both heads then project onto the directions in
which texts vary most, as many as the space has dimensions. Shapes: N pairs, F and G features, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmalign.config import EvaluateConfig
from mmalign.data import Splits
from mmalign.errors import ConfigError
from mmalign.features import ModelFeatures
from mmalign.figures.linear_map import LinearMap, fit_linear_map
from mmalign.figures.retrieval import recall_both_ways
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.model import DualEncoder


def start_from_linear_map(model: DualEncoder, features: ModelFeatures, splits: Splits, config: EvaluateConfig) -> None:
    """Set the weights of both heads in place, for a model of `start = "linear_map"`.

    Fitted on the training pairs and their first captions; the regularisation is picked on the validation pairs. Raises
    ConfigError where features do not differ.
    """
    to_image, to_text = model.image_projection, model.text_projection
    assert isinstance(to_image, nn.Sequential) and isinstance(to_text, nn.Sequential), "one head begins so, not several"
    first_captions = [pair.captions[0] for pair in splits.train]
    items = build_retrieval_set(splits.val, config.captions)
    to_images = _standardizer(to_image, features.images.of(splits.train, "training"))
    to_texts = _standardizer(to_text, features.texts.of(first_captions, "first captions of training"))
    val_images = to_images(features.images.of(items.pairs, "validation"))
    val_texts = to_texts(features.texts.of(items.texts, "validation"))

    def score(linear_map: LinearMap) -> float:
        vectors = linear_map.embed_image(val_images), linear_map.embed_text(val_texts)
        return sum(found.mean() for found in recall_both_ways(*vectors, items.relevant))

    images = to_images(features.images.of(splits.train, "training"))  # (N, F)
    texts = to_texts(features.texts.of(first_captions, "first captions of training"))  # (N, G)
    if any((side == side[0]).all() for side in (images, texts)):
        raise ConfigError(
            "there is no linear map to begin with: the images of training, or their first captions, all have the same "
            'features. Look at the pairs, or set model.start = "random".'
        )
    weight = fit_linear_map(images, texts, score).weight  # (F, G)
    directions = _directions(texts, model.config.embed_dim)  # (G, D)
    _set_weight(to_image, (weight @ directions).T)  # (D, F)
    _set_weight(to_text, directions.T)  # (D, G)


def _standardizer(projection: nn.Sequential, features: Tensor) -> nn.BatchNorm1d:
    """Return a head's first layer in evaluation mode, on the CPU, with the statistics of features (N, F)."""
    layer = projection[0]
    assert isinstance(layer, nn.BatchNorm1d), "the configuration asked for standardize_features"
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.copy_(features.mean(dim=0))
    layer.running_var.copy_(features.var(dim=0))
    same = nn.BatchNorm1d(features.shape[1], affine=False).eval()
    same.load_state_dict(layer.state_dict())
    return same


def _directions(texts: Tensor, embed_dim: int) -> Tensor:
    """Return the directions (G, D) in which texts (N, G) vary most, the first the most; zeros where D is above G."""
    centred = texts.double() - texts.double().mean(dim=0)
    _, basis = torch.linalg.eigh(centred.T @ centred)  # (G, G), the last column the most
    directions = torch.zeros(len(basis), embed_dim)
    kept = min(embed_dim, len(basis))
    directions[:, :kept] = basis.flip(1)[:, :kept]
    return directions


def _set_weight(projection: nn.Sequential, weight: Tensor) -> None:
    """Set a head's last matrix; its size stays, so that a learning rate means what it means for a random start."""
    layer = projection[-1]
    assert isinstance(layer, nn.Linear), "heads that may start so end in a matrix"
    with torch.no_grad():
        layer.weight.copy_(weight * (layer.weight.norm().cpu() / weight.norm()))

"""The bar that training must clear: a closed-form linear map from frozen image features to frozen text features.

Ridge regression (Hoerl and Kennard 1970) on centred, unit-length features; its regularisation is picked on validation
concepts. No gradient step is taken. Shapes: N items, F image features, G text features.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

# Relative to the mean eigenvalue of the features' covariance, so that the same list suits any tower.
_STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 4))

_LEAST_EIGENVALUE = torch.finfo(torch.float64).tiny


class LinearMap(msgspec.Struct, frozen=True):
    """image -> text: centre, multiply, add; and the strength (relative to the mean eigenvalue) that was picked."""

    weight: Tensor
    image_mean: Tensor
    text_mean: Tensor
    strength: float

    def embed_image(self, features: Tensor) -> Tensor:
        """Return predicted text features of unit length, (N, G), for image features (N, F)."""
        centred = _unit(features) - self.image_mean
        return _unit(centred @ self.weight)

    def embed_text(self, features: Tensor) -> Tensor:
        """Return centred text features of unit length, (N, G)."""
        return _unit(_unit(features) - self.text_mean)


def fit_linear_map(image_features: Tensor, text_features: Tensor, score: Callable[[LinearMap], float]) -> LinearMap:
    """Fit (N, F) -> (N, G) and return the map that `score`, on validation data, likes best."""
    image, text = _unit(image_features.double()), _unit(text_features.double())
    image_mean, text_mean = image.mean(dim=0), text.mean(dim=0)
    centred, target = image - image_mean, text - text_mean
    eigenvalues, basis = torch.linalg.eigh(centred.T @ centred)  # (F,), (F, F)
    projected = basis.T @ (centred.T @ target)  # (F, G)
    maps = []
    for strength in _STRENGTHS:
        # The floor keeps features without any variance, a tower that says nothing, from giving 0 / 0.
        damped = (eigenvalues.clamp(min=0) + strength * eigenvalues.mean()).clamp(min=_LEAST_EIGENVALUE)
        weight = basis @ (projected / damped[:, None])  # (F, G)
        maps.append(LinearMap(weight.float(), image_mean.float(), text_mean.float(), strength))
    return max(maps, key=score)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=-1)

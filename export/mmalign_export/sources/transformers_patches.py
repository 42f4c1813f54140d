"""SigLIP 2 of variable resolution (NaFlex): one array of patches with their places, in and out of transformers' three.

transformers resizes its table of positions in a loop over the pictures of a batch, which a graph for any batch cannot
hold. Its bilinear filter is a weighted mean along rows and along columns, written out here as one product with the
whole table: the same numbers but for rounding, whatever else is in the batch.
Shapes: B batch, N patches, P pixels of a patch's side, S rows and columns of the table, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign_runtime.spec.image import PLACE


class PlacedEmbeddings(nn.Module):
    """Takes the place of transformers' embeddings of patches: (B, N, 3 P^2 + 2), with their places, -> (B, N, F)."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.patch_embedding = cast("nn.Linear", embeddings.get_submodule("patch_embedding"))
        self.position_embedding = cast("nn.Embedding", embeddings.get_submodule("position_embedding"))
        self.table_side = int(cast("int", embeddings.position_embedding_size))

    def forward(self, pixel_values: Tensor, spatial_shapes: Tensor | None = None) -> Tensor:
        """Return each patch's features with its position's. The shapes are in the places."""
        del spatial_shapes
        patches, places = pixel_values[..., :-PLACE], pixel_values[..., -PLACE:]
        positions = self._taps(places) @ self.position_embedding.weight  # (B, N, F)
        return cast("Tensor", self.patch_embedding(patches)) + positions

    def _taps(self, places: Tensor) -> Tensor:
        """Return how much of each position in the table a patch takes, (B, N, S * S): a triangle along each side.

        As torch's antialiased bilinear filter: it reaches one entry of the table, or as many as go into a patch.
        Padding takes the first patch's, as in transformers; no attention sees it.
        """
        scale = self.table_side / places.amax(dim=1, keepdim=True)  # (B, 1, 2)
        centres = (places.clamp(min=1) - 0.5) * scale  # (B, N, 2)
        entries = torch.arange(self.table_side, dtype=places.dtype, device=places.device) + 0.5  # (S,)
        apart = (entries - centres.unsqueeze(-1)).abs() / scale.clamp(min=1).unsqueeze(-1)  # (B, N, 2, S)
        weights = functional.relu(1 - apart)
        rows, columns = (weights / weights.sum(dim=-1, keepdim=True)).unbind(dim=2)  # (B, N, S)
        return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def packed_patches(processed: Mapping[str, Tensor]) -> Tensor:
    """Return what transformers' processor gives as one array, (B, N, 3 P^2 + 2)."""
    values, mask = processed["pixel_values"], processed["pixel_attention_mask"]
    places = torch.zeros(*values.shape[:2], PLACE, dtype=values.dtype)
    for found, (num_rows, num_columns) in zip(places, processed["spatial_shapes"].tolist(), strict=True):
        grid = torch.cartesian_prod(torch.arange(1, num_rows + 1), torch.arange(1, num_columns + 1))
        found[: len(grid)] = grid
    return torch.cat([values, places * mask.unsqueeze(-1)], dim=-1)


def unpacked_patches(packed: Tensor) -> dict[str, Tensor]:
    """Return the three arrays that transformers' model takes."""
    places = packed[..., -PLACE:]
    return {
        "pixel_values": packed[..., :-PLACE],
        "pixel_attention_mask": _mask(packed),
        "spatial_shapes": places.amax(dim=1).long(),
    }


def placed_patches(packed: Tensor) -> dict[str, Tensor | None]:
    """Return what transformers' model takes once its embeddings are `PlacedEmbeddings`."""
    return {"pixel_values": packed, "pixel_attention_mask": _mask(packed), "spatial_shapes": None}


def _mask(packed: Tensor) -> Tensor:
    return (packed[..., -1] > 0).long()  # (B, N)

"""transformers' own pipeline: its processor, its tokenizer and its forward.

SigLIP 2 of variable resolution (NaFlex) has one array of patches with their places, in and out of transformers' three.
transformers resizes its table of positions in a loop over the pictures of a batch, which a graph for any batch cannot
hold. Its bilinear filter is a weighted mean along rows and along columns, written out here as one product with the
whole table: the same numbers but for rounding, whatever else is in the batch.
Shapes: B batch, L tokens, D embedding, N patches, P pixels of a patch's side, S rows and columns of the table,
F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mmalign.dual_model import Vectors
from mmalign_export.sources.transformers_families import Family
from mmalign_runtime.spec.image import PLACE

# Up to this length texts are padded to the whole context, as the processors do: so a real length is held to it.
_PADDED_UP_TO = 128


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


class TransformersOriginal:
    """A loaded model with its tokenizer and image processor."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        family: Family,
        tokenizer: transformers.PreTrainedTokenizerBase,
        processor: transformers.BaseImageProcessor,
        context_length: int,
    ) -> None:
        self.library = f"transformers {transformers.__version__}"
        self._model = model
        self._family = family
        self._tokenizer = tokenizer
        self._processor = processor
        self._context_length = context_length

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, padded as the processor pads it."""
        return [cast("list[int]", self._tokenized([text])["input_ids"][0].tolist()) for text in texts]

    def pixel_values(self, images: Sequence[Image.Image]) -> Vectors:
        """Return (B, 3, H, W), of patches (B, N, 3 P^2 + 2)."""
        return processed_pixels(self._processor, images)

    def image_vectors(self, pixel_values: Vectors) -> Vectors:
        """Return (B, D)."""
        with torch.inference_mode():
            return image_features(self._model, self._family, torch.from_numpy(pixel_values)).numpy()

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D), each text by itself."""
        rows = []
        for text in texts:
            tokens = self._tokenized([text])
            mask = tokens["attention_mask"] if self._family.has_mask or self._family.padding == "longest" else None
            with torch.inference_mode():
                rows.append(text_features(self._model, self._family, tokens["input_ids"], mask))
        return cast("Vectors", torch.cat(rows).numpy())

    def _tokenized(self, texts: list[str]) -> dict[str, Tensor]:
        pads = self._family.padding == "fixed" or self._context_length <= _PADDED_UP_TO
        tokenize = cast("Callable[..., dict[str, Tensor]]", self._tokenizer)
        return tokenize(
            texts,
            padding="max_length" if pads else "longest",
            truncation=True,
            max_length=self._context_length,
            return_tensors="pt",
            return_attention_mask=True,
        )


def processed_pixels(processor: transformers.BaseImageProcessor, images: Sequence[Image.Image]) -> Vectors:
    """Return (B, 3, H, W), or patches as one array (B, N, 3 P^2 + 2).

    A processor that converts no colour modes is given RGB, as its users must.
    """
    converts = getattr(processor, "do_convert_rgb", False)
    given = [image if converts else image.convert("RGB") for image in images]
    process = cast("Callable[..., dict[str, Tensor]]", processor)
    found = process(images=given, return_tensors="pt")
    return cast("Vectors", (packed_patches(found) if "spatial_shapes" in found else found["pixel_values"]).numpy())


def image_features(model: torch.nn.Module, family: Family, pixel_values: Tensor) -> Tensor:
    """Return (B, D), or what comes before the projection where the model's is an identity."""
    if family.scale == "config":  # BLIP's retrieval model has no such method: this is its contrastive part
        hidden = model.get_submodule("vision_model")(pixel_values=pixel_values).last_hidden_state  # (B, N, F)
        return cast("Tensor", getattr(model, family.image[1])(hidden[:, 0]))
    given = unpacked_patches(pixel_values) if family.has_patches else {"pixel_values": pixel_values}
    features = cast("Callable[..., object]", model.get_image_features)(**given)
    return cast("Tensor", features.pooler_output)  # type: ignore[attr-defined]


def text_features(model: torch.nn.Module, family: Family, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return (B, D), or what comes before the projection where the model's is an identity."""
    given = {"input_ids": input_ids} | ({} if attention_mask is None else {"attention_mask": attention_mask})
    if family.scale == "config":
        hidden = model.get_submodule("text_encoder")(**given).last_hidden_state  # (B, L, F)
        return cast("Tensor", getattr(model, family.text[1])(hidden[:, 0]))
    features = cast("Callable[..., object]", model.get_text_features)(**given)
    return cast("Tensor", features.pooler_output)  # type: ignore[attr-defined]

"""transformers' own pipeline: its processor, its tokenizer and its forward. Shapes: B batch, L tokens, D embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmalign_export.sources.transformers_families import Family
from mmalign_export.sources.transformers_patches import packed_patches, unpacked_patches

# Up to this length texts are padded to the whole context, as the processors do: so a real length is held to it.
_PADDED_UP_TO = 128

Vectors = NDArray[np.float32]


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

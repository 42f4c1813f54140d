"""A bundle's towers: what each one takes, by role, and what makes that of an item."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

import msgspec

from mmalign_runtime.spec.image import ImageSpec
from mmalign_runtime.spec.text import TextSpec

Name = Annotated[str, msgspec.Meta(min_length=1)]
Width = Annotated[int, msgspec.Meta(ge=1)]
Value = TypeVar("Value")


class ImageInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tensors that an image tower takes, by role."""

    pixel_values: Name = "pixel_values"

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names, in the order that the tower takes them."""
        return (self.pixel_values,)


class TextInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tensors that a text tower takes, by role. Without an `attention_mask` it sees padding as it sees tokens."""

    input_ids: Name = "input_ids"
    attention_mask: Name | None = None

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names, in the order that the tower takes them."""
        return (self.input_ids,) if self.attention_mask is None else (self.input_ids, self.attention_mask)

    def feeds(self, input_ids: Value, attention_mask: Value) -> dict[str, Value]:
        """Return what the tower is fed, by the tensors' names: no mask where it takes none."""
        return dict(zip(self.names(), (input_ids, attention_mask), strict=False))


class ImageTower(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="modality", tag="image"
):
    """A tower of images: its spec, and the file of its preprocessing graph.

    `width` is the length of the features before the projection, where it is known.
    """

    spec: ImageSpec
    preprocess: str
    architecture: str
    width: Width | None = None
    inputs: ImageInputs = ImageInputs()
    output: Name = "image_embeds"

    def files(self) -> dict[str, str]:
        """Return the files that it names, by field."""
        return {"preprocess": self.preprocess}


class TextTower(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="modality", tag="text"
):
    """A tower of texts: its spec, and the file of its tokenizer. `width` as in ImageTower."""

    spec: TextSpec
    tokenizer: str
    architecture: str
    width: Width | None = None
    inputs: TextInputs = TextInputs()
    output: Name = "text_embeds"

    def files(self) -> dict[str, str]:
        """Return the files that it names, by field."""
        return {"tokenizer": self.tokenizer}


Tower: TypeAlias = ImageTower | TextTower

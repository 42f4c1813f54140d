"""A second stage of search: texts look at the regions of images. What two further graphs of a bundle compute."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from mmalign_runtime.spec.towers import Name

# What artifacts call them, beside the names of towers.
REGIONS: Final = "regions"
SCORES: Final = "scores"

Side = Annotated[int, msgspec.Meta(ge=1)]


class Attention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the regions of an image lie, and the tensors of the two graphs, by role.

    The graph "regions" takes what the image tower takes, by the same name, and gives `image_tokens` (B, 1 + N, D): the
    image's vector, then a token of each of the N = `rows` x `columns` regions, row after row. The graph "scores" takes
    `text_embeds` (T, D) and `image_tokens` (I, 1 + N, D) and gives `attended` (T, I, 1 + N): the score of a text and an
    image, then what the text weighs the image's regions by.
    """

    rows: Side
    columns: Side
    text_embeds: Name = "text_embeds"
    image_tokens: Name = "image_tokens"
    attended: Name = "attended"

    @property
    def num_tokens(self) -> int:
        """1 + N, the tokens of an image: its vector and its regions."""
        return 1 + self.rows * self.columns

"""What ranges are taken from: single images and texts, as a tower is fed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import TextInputs
from mmalign_runtime.tokenizer import TokenBatch


class Item(msgspec.Struct, frozen=True):
    """One image or text, batch of 1. `is_token` (L,) says which of a text's positions count; None where all do."""

    feeds: Feeds
    is_token: NDArray[np.bool_] | None = None

    def counted(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows (R, K) that count of an inner tensor (..., K), padding left out whatever the layout."""
        rows = values.reshape(-1, values.shape[-1])
        return rows[self.is_token] if self.is_token is not None and len(rows) == len(self.is_token) else rows


def image_items(images: Sequence[NDArray[np.float32]], input_name: str) -> tuple[Item, ...]:
    """Return prepared images, (1, 3, H, W) each, as items."""
    return tuple(Item({input_name: image}) for image in images)


def text_items(batches: Sequence[TokenBatch], inputs: TextInputs, *, is_padded: bool) -> tuple[Item, ...]:
    """Return each text of token batches as an item.

    `is_padded` is true for a tower that is always fed its whole context: padding then stands where it will stand. It
    counts where the tower takes no mask: it carries data there. Other towers are fed a text's own tokens alone.
    """
    return tuple(_text_item(*row, inputs, is_padded=is_padded) for batch in batches for row in _rows(batch))


def _rows(batch: TokenBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return zip(batch.input_ids[:, None], batch.attention_mask[:, None], strict=True)  # (1, L) each


def _text_item(ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: TextInputs, *, is_padded: bool) -> Item:
    is_token = mask[0].astype(bool)  # (L,)
    if not is_padded:
        return Item(inputs.feeds(ids[:, is_token], mask[:, is_token]))
    return Item(inputs.feeds(ids, mask), is_token if inputs.attention_mask else None)

"""What an import is proven against, whose methods may raise anything and give anything: each fault is one named error.

Shapes: B batch, D embedding, H and W image sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.memory import memory_reason
from mmalign_export.errors import SourceError
from mmalign_export.sources.protocol import Original
from mmalign_export.sources.refusals import LIBRARY_ERRORS, first_sentence

Found = TypeVar("Found")
_METHODS = ("token_ids", "pixel_values", "image_vectors", "text_vectors")


class CheckedReference:
    """Another `Original`, whose answers are arrays and ids of as many items as were asked for. Raises SourceError."""

    def __init__(self, reference: Original) -> None:
        missing = [name for name in ("library", *_METHODS) if not hasattr(reference, name)]
        if missing:
            raise SourceError(
                f"the reference is {type(reference).__name__} and has no {', '.join(missing)}; expected the methods of "
                "mmalign_export.sources.protocol.Original. Leave it out to hold the bundle to the modules themselves."
            )
        self._reference = reference

    @property
    def library(self) -> str:
        """The reference's own name."""
        return str(self._reference.library)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        asked = "token_ids"
        rows = self._answered(asked, lambda: [[int(each) for each in row] for row in self._reference.token_ids(texts)])
        self._check(asked, f"{len(rows)} rows", f"{len(texts)}, one a text", is_right=len(rows) == len(texts))
        return rows

    def pixel_values(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (B, 3, H, W), or patches (B, N, 3 P^2 + 2)."""
        return self._array("pixel_values", lambda: self._reference.pixel_values(images), len(images), (3, 4))

    def image_vectors(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D)."""
        return self._array(
            "image_vectors", lambda: self._reference.image_vectors(pixel_values), len(pixel_values), (2,)
        )

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (B, D)."""
        return self._array("text_vectors", lambda: self._reference.text_vectors(texts), len(texts), (2,))

    def _array(
        self, name: str, ask: Callable[[], object], num_items: int, axes: tuple[int, ...]
    ) -> NDArray[np.float32]:
        found = self._answered(name, lambda: np.asarray(ask(), np.float32))
        is_right = found.ndim in axes and len(found) == num_items
        self._check(name, f"an array of shape {found.shape}", f"{num_items} items, one a row", is_right=is_right)
        return found

    def _answered(self, name: str, ask: Callable[[], Found]) -> Found:
        try:
            return ask()
        except LIBRARY_ERRORS as error:
            if memory_reason(error) is not None:
                raise
            raise SourceError(
                f"the reference's {name} raised {type(error).__name__}: {first_sentence(error)}. Correct it: the "
                f"bundle is proven against {self.library}."
            ) from error

    def _check(self, name: str, seen: str, expected: str, *, is_right: bool) -> None:
        if not is_right:
            raise SourceError(
                f"the reference's {name} gives {seen}; expected {expected}. Correct it: the bundle is proven against "
                f"{self.library}."
            )

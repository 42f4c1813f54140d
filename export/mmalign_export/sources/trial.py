"""A tower tried on the inputs that its spec makes, before anything else: libraries raise what they like on a bad model.

A tokenizer is held to the rows of its text tower: each id has a vector, and most of the vectors have an id. What an
import is proven against may raise anything and give anything: each fault is one named error.
Shapes: B batch, D embedding, F features, H and W image sides.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from mmalign.memory import memory_reason
from mmalign.signature import ModuleInput, trace_example
from mmalign_export.errors import SourceError
from mmalign_export.sources.protocol import Original
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_alive, first_sentence

logger = logging.getLogger(__name__)

# What batches of other sizes move a component of a unit vector by, in float16 too; dropout and statistics move more.
_SAME = 5e-3
# Of the text tower's vectors. Published towers have more of them than tokens, to round their number or for tokens to
# come; of those looked up, open_clip's coca_base has fewest in use (49,408 of 64,000).
_FEWEST_USED = 0.5
Found = TypeVar("Found")

_METHODS = ("token_ids", "pixel_values", "image_vectors", "text_vectors")


def tried_width(name: str, inputs: Sequence[ModuleInput], *modules: nn.Module) -> tuple[int, ...]:
    """Return how long the vectors are that modules give one after the other: (B, F) of the first one's inputs, and on.

    Raises SourceError, naming the tower, for an error in a forward and for something else than vectors.
    """
    found: object = None
    widths = []
    for module in modules:
        try:
            example = trace_example(inputs).inputs  # sizes that no memory holds are an error of the configuration too
            with torch.inference_mode():
                found = module(*example) if found is None else module(found)
        except LIBRARY_ERRORS as error:
            raise SourceError(
                f"the {name} cannot take {', '.join(each.name for each in inputs)} as its configuration makes them: "
                f"{type(error).__name__}: {first_sentence(error)}. Model and configuration disagree, or its library "
                "does not support this configuration."
            ) from error
        found = _vectors(name, found, len(example[0]))
        if example[0].is_floating_point():  # the ids of an example may all be padding, which has no vector
            check_alive(f"the {name}", found.float().numpy())
        widths.append(int(found.shape[1]))
    return tuple(widths)


def _vectors(name: str, found: object, num_items: int) -> Tensor:
    """Return what a tower gave. Raises SourceError unless it is a tensor (B, F) of floating-point numbers."""
    seen = type(found).__name__
    if isinstance(found, Tensor):
        if found.is_floating_point() and found.ndim == 2 and len(found) == num_items:
            return found
        seen = f"a tensor {tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}"
    raise SourceError(f"the {name} gives {seen}; expected a tensor (B, D) of floats, one vector an item.")


def check_each_alone(name: str, module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raise SourceError, naming the module, where an item has another vector beside others, or the second time.

    Of inputs of several items, which are not alike.
    """
    try:
        with torch.inference_mode():
            found = [module(*inputs), module(*inputs)]
            found.append(torch.cat([module(*(each[at : at + 1] for each in inputs)) for at in range(len(inputs[0]))]))
    except LIBRARY_ERRORS as error:
        raise SourceError(
            f"the {name} cannot take its inputs, several items or one: {type(error).__name__}: "
            f"{first_sentence(error)}. Correct its forward, or the specs and the tokenizer that make its inputs."
        ) from error
    first, second, alone = (functional.normalize(each.double(), dim=-1) for each in found)
    if not torch.allclose(first, second, rtol=0, atol=_SAME):
        raise SourceError(
            f"the {name} gives another vector for the same input the second time (by {_largest(first, second)}): "
            "something is drawn at random although it is in evaluation mode. Turn dropout and noise off in its forward."
        )
    if not torch.allclose(first, alone, rtol=0, atol=_SAME):
        raise SourceError(
            f"the {name} gives an item another vector beside others than alone (by {_largest(first, alone)}): its "
            "vectors depend on the batch. Take statistics of the batch out of its forward."
        )


def _largest(left: Tensor, right: Tensor) -> str:
    return f"{float((left - right).abs().max()):.1e}"


def fitted_tokenizer(tokenizer: Tokenizer, num_embeddings: int) -> Tokenizer:
    """Return the tokenizer without added tokens that the text tower has no vector for; usually it has none of those.

    T5's hundred `<extra_id_N>` are such tokens in open_clip's SigLIP (32,100 tokens, 32,000 vectors): the library fails
    on a text that holds one. Raises SourceError for another token without a vector, and for few tokens.
    """
    ids = tokenizer.get_vocab()
    num_tokens = 1 + max(ids.values())
    without = {token for token, number in ids.items() if number >= num_embeddings}
    added = {each.content for each in tokenizer.get_added_tokens_decoder().values()}
    if not without <= added or num_tokens < num_embeddings * _FEWEST_USED:
        raise SourceError(
            f"the tokenizer has {num_tokens} tokens, and the text tower vectors for {num_embeddings}: they are not of "
            "one model. Fetch both again."
        )
    if not without:
        return tokenizer
    logger.info("import: %d added tokens have no vector, and are read as text: %s", len(without), min(without))
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [each for each in described["added_tokens"] if each["content"] not in without]
    pieces = described["model"]["vocab"]  # by id, or ids by piece
    described["model"]["vocab"] = (
        pieces[:num_embeddings]
        if isinstance(pieces, list)
        else {piece: number for piece, number in pieces.items() if piece not in without}
    )
    fitted = Tokenizer.from_str(json.dumps(described))
    if max(fitted.encode("").ids, default=0) >= num_embeddings:
        raise SourceError(
            "the tokenizer puts a token into every text that has no vector among the text tower's "
            f"{num_embeddings}: they are not of one model. Fetch both again."
        )
    return fitted


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

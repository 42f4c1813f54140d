"""The losses spelled out in numpy, float64, item by item, and their gradients by complex steps.

A complex step (Squire and Trapp 1998) gives a derivative to the last digit: nothing is subtracted. Whatever a
definition computes must therefore be analytic: no absolute values, and comparisons only of what does not learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch, Loss, TeacherVectors
from mmalign.losses.term import Term
from tests.tolerances import LOSS_GRADIENT

Array = NDArray[np.complex128]
# Of image vectors, text vectors, vectors of views, and the scale of cosines.
Definition = Callable[[Array, Array, Array, Array], complex]
_STEP = 1e-30

CONCEPTS = ([0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [7, 7, 7, 7, 7, 7])


def unit(num_rows: int, seed: int, width: int = 8) -> Tensor:
    """Return seeded unit vectors."""
    return functional.normalize(torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_of(concepts: Sequence[int]) -> EmbeddedBatch:
    """Return a batch with everything that a loss may ask for."""
    count = len(concepts)
    return EmbeddedBatch(
        image_embeds=unit(count, 1).requires_grad_(),
        text_embeds=unit(count, 2).requires_grad_(),
        keys=torch.tensor(concepts),
        captions=3 * unit(count, 3, width=2),
        view_embeds=unit(count, 4).requires_grad_(),
        teacher=TeacherVectors(unit(count, 5, width=3), unit(count, 6, width=3), scale=7.0),
    )


def log_softmax(row: Array) -> Array:
    """Return the logarithms of a row's shares."""
    shifted = row - row.real.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def unit_rows(matrix: Array) -> Array:
    """Return rows of length one; not np.linalg.norm, which takes absolute values."""
    return np.asarray(matrix / np.sqrt((matrix**2).sum(axis=1, keepdims=True)))


def assert_equals(
    loss: Loss, batch: EmbeddedBatch, definition: Definition, term: Term | None = None, bound: float | None = None
) -> None:
    """Compare a loss, or a term beside it, with its definition: the value, and the gradient by all that learns."""
    bound = LOSS_GRADIENT.bound if bound is None else bound
    assert batch.view_embeds is not None
    inputs = [batch.image_embeds, batch.text_embeds, batch.view_embeds, loss.logit_scale]
    found = term.value(batch, loss) if term else loss(batch)
    gradients = torch.autograd.grad(found, inputs, allow_unused=True, materialize_grads=True)
    arrays = [tensor.detach().double().numpy().astype(np.complex128) for tensor in inputs]
    arrays[3] = np.asarray(np.exp(arrays[3]))  # the scale, of which float32 keeps the logarithm
    wanted = definition(*arrays).real
    assert abs(found.item() - wanted) <= bound * max(1.0, abs(wanted))
    for at, gradient in enumerate(gradients):
        expected = complex_step(definition, arrays, at) * (arrays[3].real if at == 3 else 1.0)
        difference = np.abs(gradient.double().numpy() - expected).max()
        assert difference <= bound * max(np.abs(expected).max(), 1e-3), (at, difference)


def complex_step(definition: Definition, arrays: Sequence[Array], at: int) -> NDArray[np.float64]:
    """Return the gradient of a definition by one of its arrays."""
    gradient = np.zeros(arrays[at].shape)
    for index in np.ndindex(arrays[at].shape):
        moved = [array.copy() for array in arrays]
        moved[at][index] += 1j * _STEP
        gradient[index] = definition(*moved).imag / _STEP
    return gradient

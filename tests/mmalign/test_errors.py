from __future__ import annotations

import inspect

from mmalign import errors
from mmalign_runtime.errors import MmalignError


def test_every_error_has_one_root_and_stands_in_the_tree() -> None:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind is not MmalignError]
    raised = [kind for kind in found if issubclass(kind, Exception)]
    assert len(raised) == 7
    assert all(issubclass(kind, MmalignError) for kind in raised)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in raised)


def test_error_of_a_batch_carries_its_pairs() -> None:
    error = errors.NonFiniteError("the loss", 7, [3, 5])
    assert str(error) == "the loss at step 7 is not finite"
    assert error.rows == (3, 5)

from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import InputError, SpaceMismatchError
from mmalign_runtime.saved import SavedVectors
from mmalign_runtime.spaces import compat, similarity

LEFT = SavedVectors(("a", "b"), np.eye(2, 3, dtype=np.float32), "mma-1", "fp32-1")


def test_cosines_of_one_space_are_products() -> None:
    right = SavedVectors(("c",), np.array([[0.6, 0.8, 0]], np.float32), "mma-1", "int8-2")
    np.testing.assert_allclose(similarity(LEFT, right), [[0.6], [0.8]], rtol=1e-6)


def test_two_spaces_are_never_compared() -> None:
    right = msgspec.structs.replace(LEFT, space_id="mma-2")
    assert not compat(LEFT, right).is_same_space
    with pytest.raises(SpaceMismatchError, match=r"two spaces, mma-1 and mma-2.*`mmalign embed BUNDLE INPUT"):
        similarity(LEFT, right)


def test_vectors_and_the_bundle_that_made_them_are_compatible(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    saved = msgspec.structs.replace(LEFT, space_id=bundle.space_id)
    assert compat(saved, bundle).is_same_space
    compat(bundle, saved).require()


def test_one_space_with_two_lengths_is_refused() -> None:
    right = SavedVectors(("c",), np.eye(1, 4, dtype=np.float32), "mma-1", "fp32-1")
    with pytest.raises(InputError, match="have lengths 3 and 4"):
        similarity(LEFT, right)

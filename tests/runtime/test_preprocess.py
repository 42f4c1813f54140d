import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmalign_runtime import Embedder


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (1, 1), (33, 57)])
def test_any_shape_becomes_one_square_of_pixel_values(embedder: Embedder, shape: tuple[int, int]) -> None:
    size = embedder.image.spec.size
    pixel_values = embedder.image.preprocess(np.zeros((*shape, 3), np.uint8))
    assert pixel_values.shape == (1, 3, size, size)
    assert pixel_values.dtype == np.float32


def test_one_colour_is_normalised_by_mean_and_std(embedder: Embedder) -> None:
    spec = embedder.image.spec
    colour = np.array((200, 100, 50), np.uint8)
    pixel_values = embedder.image.preprocess(np.broadcast_to(colour, (64, 48, 3)).copy())
    expected = (colour / 255 - spec.mean) / spec.std
    # Weights of a resize sum to 1 within rounding; nothing else may move a flat colour.
    np.testing.assert_allclose(pixel_values[0].mean(axis=(1, 2)), expected, atol=1e-4)
    assert np.ptp(pixel_values[0], axis=(1, 2)).max() < 1e-4


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 300), width=st.integers(1, 300), level=st.integers(0, 255))
def test_every_size_becomes_finite_pixel_values_of_one_shape(
    embedder: Embedder, height: int, width: int, level: int
) -> None:
    size = embedder.image.spec.size
    pixel_values = embedder.image.preprocess(np.full((height, width, 3), level, np.uint8))
    assert pixel_values.shape == (1, 3, size, size)
    assert np.isfinite(pixel_values).all()
    assert np.ptp(pixel_values, axis=(0, 2, 3)).max() == 0

import numpy as np
import pytest

from mmalign_runtime import Embedder


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (1, 1), (33, 57)])
def test_any_shape_becomes_one_square_of_pixel_values(embedder: Embedder, shape: tuple[int, int]) -> None:
    size = embedder.image.files.spec.size
    pixel_values = embedder.image.preprocess(np.zeros((*shape, 3), np.uint8))
    assert pixel_values.shape == (1, 3, size, size)
    assert pixel_values.dtype == np.float32


def test_one_colour_is_normalised_by_mean_and_std(embedder: Embedder) -> None:
    spec = embedder.image.files.spec
    colour = np.array((200, 100, 50), np.uint8)
    pixel_values = embedder.image.preprocess(np.broadcast_to(colour, (64, 48, 3)).copy())
    expected = (colour / 255 - spec.mean) / spec.std
    # Weights of a resize sum to 1 within rounding; nothing else may move a flat colour.
    np.testing.assert_allclose(pixel_values[0].mean(axis=(1, 2)), expected, atol=1e-4)
    assert np.ptp(pixel_values[0], axis=(1, 2)).max() < 1e-4

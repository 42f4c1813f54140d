import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.arguments import as_count
from mmalign_runtime.ranking import search
from mmalign_runtime.saved import SavedVectors
from mmalign_runtime.spec import ImageLimits
from tests.runtime.conftest import _TINY_BUNDLE
from tests.runtime.pictures import noise

WHOLE = [4, np.int64(4), np.int32(4), np.uint8(4), np.array(4)]
WRONG = [0, -1, np.int64(0), True, np.True_, 4.0, np.float32(4), "4", None, np.array([4]), float("nan")]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_a_whole_number_of_any_library_is_a_count(value: object) -> None:
    count = as_count(value, "batch_size")
    assert (count, type(count)) == (4, int)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_anything_else_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"batch_size is .*, expected a whole number of at least 1\."):
        as_count(value, "batch_size")


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_every_count_of_the_api_takes_one(embedder: Embedder, value: int) -> None:
    texts, images = ["a dog", "a cat", "a red house"], [noise(20, 30)] * 3
    expected = embedder.encode_text(texts, batch_size=4)
    np.testing.assert_array_equal(embedder.encode_text(texts, batch_size=value), expected)
    np.testing.assert_array_equal(
        embedder.encode_image(images, batch_size=value), embedder.encode_image(images, batch_size=4)
    )
    limits = ImageLimits(max_pixels=value, max_bytes=value, max_side=value, max_aspect_ratio=4)
    with Embedder.load(_TINY_BUNDLE, provider="cpu", num_threads=value, image_limits=limits) as loaded:
        assert (loaded.info().num_threads, loaded.image.spec.limits.max_side) == (4, 4)
    saved = SavedVectors(("a",), embedder.encode_text(["a"]), embedder.space_id, "fp32")
    assert len(search(saved.vectors, saved, top_k=value, space_id=embedder.space_id)[0]) == 1


@pytest.mark.parametrize("value", [True, 4.0, np.float64(4), "4", 0], ids=repr)
def test_every_count_of_the_api_refuses_what_is_not_one(embedder: Embedder, value: int) -> None:
    saved = SavedVectors(("a",), embedder.encode_text(["a"]), embedder.space_id, "fp32")
    for use, name in (
        (lambda: embedder.encode_text(["a"], batch_size=value), "batch_size"),
        (lambda: embedder.encode_image([noise(4, 5)], batch_size=value), "batch_size"),
        (lambda: Embedder.load(_TINY_BUNDLE, num_threads=value), "num_threads"),
        (lambda: Embedder.load(_TINY_BUNDLE, image_limits=ImageLimits(max_side=value)), "image_limits: max_side"),
        (lambda: search(saved.vectors, saved, top_k=value, space_id=embedder.space_id), "top_k"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is .*, expected a whole number of at least 1"):
            use()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmalign_runtime.image.arrays import check_array
from mmalign_runtime.image.refusal import Refusal

DTYPES = [np.uint8, np.int8, np.bool_, np.uint16, np.int64, np.float16, np.float32, np.float64, np.complex64]


def test_rows_are_made_contiguous_and_values_kept() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)[::-1, ::2]
    checked = check_array(pixels)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, pixels)


def test_the_conversion_that_an_error_names_gives_an_array_that_passes() -> None:
    chw = np.zeros((3, 8, 9), np.uint8)
    grey = np.zeros((8, 9), np.uint8)
    with pytest.raises(Refusal, match=r"array\.transpose\(1, 2, 0\)"):
        check_array(chw)
    assert check_array(chw.transpose(1, 2, 0)).shape == (8, 9, 3)
    assert check_array(np.repeat(grey[:, :, None], 3, axis=2)).shape == (8, 9, 3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(dtype=st.sampled_from(DTYPES), shape=st.lists(st.integers(0, 6), max_size=5), data=st.data())
def test_an_array_is_unambiguous_rgb_or_refused(dtype: type, shape: list[int], data: st.DataObject) -> None:
    array = data.draw(arrays(dtype, tuple(shape)))
    is_rgb = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0
    if is_rgb and array.shape[0] != 3:
        np.testing.assert_array_equal(check_array(array), array)
    else:
        with pytest.raises(Refusal, match=r"seen shape .* expected \(H, W, 3\) uint8 RGB in 0\.\.255: .+"):
            check_array(array)

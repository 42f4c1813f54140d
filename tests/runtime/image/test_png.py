import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmalign_runtime.image.opening import check_chunks
from mmalign_runtime.image.refusal import Refusal
from tests.runtime.pictures import noise, saved

RAW = saved(Image.fromarray(noise(9, 9)), "PNG")


def test_a_whole_png_passes_also_with_bytes_behind_it() -> None:
    check_chunks(RAW)
    check_chunks(RAW + b"more")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(where=st.integers(8, len(RAW) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(where: int, bit: int) -> None:
    damaged = bytearray(RAW)
    damaged[where] ^= 1 << bit
    with pytest.raises(Refusal, match=r"the PNG is (damaged: the checksum|truncated)"):
        check_chunks(bytes(damaged))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(kept=st.integers(8, len(RAW) - 1))
def test_any_cut_is_found(kept: int) -> None:
    with pytest.raises(Refusal, match="the PNG is truncated"):
        check_chunks(RAW[:kept])

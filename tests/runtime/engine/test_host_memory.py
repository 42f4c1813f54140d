from __future__ import annotations

import gc

import numpy as np

from mmalign_runtime.engine.host_memory import HostMemory


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_goes_round_when_its_last_view_is_gone() -> None:
    memory = HostMemory("cpu")
    array = memory.empty((2, 3, 8, 8))
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((2, 3, 8, 8), np.float32, True)
    row, first = array[1], address(array)
    row[...] = 7
    del array
    gc.collect()
    assert address(memory.empty((2, 3, 8, 8))) != first  # a view of it is still in use
    assert (row == 7).all()
    del row
    gc.collect()
    again = memory.empty((2, 3, 8, 8))
    assert address(again) == first


def test_no_more_is_kept_than_streams_have_in_hand() -> None:
    memory = HostMemory("cpu")
    arrays = [memory.empty((1, 4)) for _ in range(9)]
    assert len({address(array) for array in arrays}) == 9
    before = {address(array) for array in arrays}
    del arrays
    gc.collect()
    reused = [memory.empty((1, 4)) for _ in range(4)]
    assert {address(array) for array in reused} <= before


def test_only_beside_cuda_it_is_page_locked() -> None:
    assert not HostMemory("cpu").is_pinned


def test_four_arrays_of_a_shape_are_kept_and_the_last_ones() -> None:
    memory = HostMemory("cpu")
    arrays = [memory.empty((1, 4)) for _ in range(6)]
    order = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    gc.collect()
    reused = [memory.empty((1, 4)) for _ in range(4)]
    assert {address(array) for array in reused} == set(order[-4:])
    assert len(memory._free[(1, 4)]) == 0

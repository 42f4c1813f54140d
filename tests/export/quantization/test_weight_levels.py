from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mmalign_export.quantization import weight_levels
from mmalign_export.quantization.columns import rounded_columns
from mmalign_export.quantization.convolutions import quantize_convolutions, record_ranges
from mmalign_export.quantization.weight_levels import EIGHT_BITS, SEVEN_BITS
from tests.export.quantization.tiny_models import convolutional, fed, pictures

LEVELS = pytest.mark.parametrize(("is_cut_off", "largest"), [(True, SEVEN_BITS), (False, EIGHT_BITS)])


@LEVELS
def test_products_have_weights_that_are_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, is_cut_off: bool, largest: int
) -> None:
    monkeypatch.setattr(weight_levels, "saturates", lambda: is_cut_off)
    random = np.random.default_rng(0)
    weight, rows = (random.standard_normal(shape).astype(np.float32) for shape in ((32, 16), (100, 32)))
    steps = (np.abs(weight).max(axis=0) / weight_levels.largest_level()).astype(np.float32)
    levels = rounded_columns(weight, steps, rows)
    assert np.abs(levels.astype(int)).max() == largest


@LEVELS
def test_convolutions_have_weights_that_are_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cut_off: bool, largest: int
) -> None:
    monkeypatch.setattr(weight_levels, "saturates", lambda: is_cut_off)
    model = convolutional()
    ranges = record_ranges(model, fed(pictures(2)), "minmax")
    quantized = quantize_convolutions(convolutional(), ranges, frozenset())
    weights = [
        numpy_helper.to_array(each) for each in quantized.graph.initializer if each.data_type == onnx.TensorProto.INT8
    ]
    sizes = [np.abs(each.astype(int)).max() for each in weights if each.ndim == 4]
    assert sizes
    assert max(sizes) == largest


def test_no_pair_of_products_of_seven_bits_overflows_sixteen() -> None:
    assert 2 * 255 * SEVEN_BITS <= np.iinfo(np.int16).max < 2 * 255 * EIGHT_BITS

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mmalign_export.quantization import rounding
from mmalign_export.quantization.convolutions import quantize_convolutions, record_ranges
from mmalign_export.quantization.dynamic import quantize_dynamically
from mmalign_export.quantization.rounding import EIGHT_BITS, rounded_columns
from mmalign_runtime.engine.eight_bits import SEVEN_BITS, saturates
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.session import Model
from tests.export.quantization.conftest import TinyBert
from tests.export.quantization.tiny_models import OPTIONS, convolutional, fed, graph_model, pictures

LEVELS = pytest.mark.parametrize(("is_cut_off", "largest"), [(True, SEVEN_BITS), (False, EIGHT_BITS)])


@LEVELS
def test_products_have_weights_that_are_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, is_cut_off: bool, largest: int
) -> None:
    monkeypatch.setattr(rounding, "saturates", lambda: is_cut_off)
    random = np.random.default_rng(0)
    weight, rows = (random.standard_normal(shape).astype(np.float32) for shape in ((32, 16), (100, 32)))
    steps = (np.abs(weight).max(axis=0) / rounding.largest_level()).astype(np.float32)
    levels = rounded_columns(weight, steps, rows)
    assert np.abs(levels.astype(int)).max() == largest


@LEVELS
def test_convolutions_have_weights_that_are_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cut_off: bool, largest: int
) -> None:
    monkeypatch.setattr(rounding, "saturates", lambda: is_cut_off)
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


@LEVELS
def test_dynamic_products_have_weights_that_are_not_cut_off(
    bert: TinyBert, monkeypatch: pytest.MonkeyPatch, is_cut_off: bool, largest: int
) -> None:
    monkeypatch.setattr(rounding, "saturates", lambda: is_cut_off)
    tensors = [numpy_helper.to_array(each) for each in quantize_dynamically(bert.exported).graph.initializer]
    assert max(np.abs(each.astype(int)).max() for each in tensors if each.dtype == np.int8 and each.ndim) == largest


@pytest.mark.parametrize("level", [SEVEN_BITS, EIGHT_BITS])
@pytest.mark.parametrize("operator", ["MatMul", "Conv"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_cut_off_eight_bits_where_the_processor_is_said_to_and_seven_nowhere(
    engine: str, operator: str, level: int
) -> None:
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    model, exact = _largest_product(operator, level)
    session = find_engine(engine).open(Model(model.SerializeToString(), "the product", ("x",)), OPTIONS)
    shape = [value.dim_value for value in model.graph.input[0].type.tensor_type.shape.dim]
    is_exact = bool((np.abs(session.run({"x": np.full(shape, 255, np.float32)}) - exact) <= exact / 200).all())
    assert is_exact == (level == SEVEN_BITS or not saturates())


def _largest_product(operator: str, level: int) -> tuple[onnx.ModelProto, int]:
    """Return a product of 64 channels in eight bits, all weights of one level, and what 255 in all of them gives."""
    weight = np.full((64, 16) if operator == "MatMul" else (16, 64, 1, 1), level, np.int8)
    exact = 64 * 255 * level
    ends: dict[str, list[str | int]]
    ends = {"x": [4, 64], "y": [4, 16]} if operator == "MatMul" else {"x": [2, 64, 4, 4], "y": [2, 16, 4, 4]}
    constants: dict[str, NDArray[np.generic]] = {
        "weight": weight,
        "one": np.array(1, np.float32),
        "step": np.array(exact / 250, np.float32),
        "zero": np.array(0, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x_levels"]),
        helper.make_node("DequantizeLinear", ["x_levels", "one", "zero"], ["x_rounded"]),
        helper.make_node("DequantizeLinear", ["weight", "one"], ["weight_rounded"]),
        helper.make_node(operator, ["x_rounded", "weight_rounded"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "step", "zero"], ["y_levels"]),
        helper.make_node("DequantizeLinear", ["y_levels", "step", "zero"], ["y"]),
    ]
    return graph_model(nodes, constants, ends), exact

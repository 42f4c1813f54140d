"""Makes the graphs that the runtime sends numbers through: is float32 kept, do eight-bit products fit?

Run as `python -m mmalign_export.probe`, it writes the files that the runtime ships.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

# As the preprocessing graph: what every current runtime reads.
_OPSET = 18
_IR_VERSION = 8
_CHANNELS, _SIDE = 64, 32
_ROWS, _COLUMNS = 8, 16


def float32_probe() -> onnx.ModelProto:
    """Return x (1, 64, 32, 32) -> 1 x 1 convolution with `kernel` -> `left` (64, 64) times the result as (64, 1024)."""
    shapes = {"x": [1, _CHANNELS, _SIDE, _SIDE], "kernel": [_CHANNELS, _CHANNELS, 1, 1], "left": [_CHANNELS, _CHANNELS]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [_CHANNELS, _SIDE * _SIDE])
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["convolved"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["convolved", "matrix_shape"], ["matrix"]),
        helper.make_node("MatMul", ["left", "matrix"], ["y"]),
    ]
    shape = helper.make_tensor("matrix_shape", TensorProto.INT64, [2], [_CHANNELS, _SIDE * _SIDE])
    return _model(helper.make_graph(nodes, "float32_probe", inputs, [output], initializer=[shape]))


def eight_bit_probe() -> onnx.ModelProto:
    """Return x (8, 64) uint8 -> its product with a matrix (64, 16) of 127 in int8, as float32."""
    ends = ("x", TensorProto.UINT8, [_ROWS, _CHANNELS]), ("y", TensorProto.FLOAT, [_ROWS, _COLUMNS])
    taken, given = (helper.make_tensor_value_info(*end) for end in ends)
    nodes = [
        helper.make_node("MatMulInteger", ["x", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    weight = helper.make_tensor("weight", TensorProto.INT8, [_CHANNELS, _COLUMNS], [127] * _CHANNELS * _COLUMNS)
    return _model(helper.make_graph(nodes, "eight_bit_probe", [taken], [given], initializer=[weight]))


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mmalign")
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    from mmalign_runtime.engine import eight_bits
    from mmalign_runtime.verify import float32

    for module, made in ((float32, float32_probe()), (eight_bits, eight_bit_probe())):
        target = Path(str(module.__file__)).with_name(module.PROBE)
        target.write_bytes(made.SerializeToString(deterministic=True))

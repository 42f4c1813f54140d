"""Makes the graph that the runtime's verify sends a number through, to see whether a provider computes in float32.

Run as `python -m mmalign_export.probe`, it writes the file that the runtime ships.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

# As the preprocessing graph: what every current runtime reads.
_OPSET = 18
_IR_VERSION = 8
_CHANNELS, _SIDE = 64, 32


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
    graph = helper.make_graph(nodes, "float32_probe", inputs, [output], initializer=[shape])
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mmalign")
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    from mmalign_runtime.verify import float32

    target = Path(float32.__file__).with_name(float32.PROBE)
    target.write_bytes(float32_probe().SerializeToString(deterministic=True))

"""Matrix products (M, K) x (K, N) in the engines that run towers, weights constant as they are there.

float32    onnxruntime MatMul, torch.mm, OpenVINO
bfloat16   torch.mm, OpenVINO
int8       onnxruntime MatMulInteger and a QDQ MatMul (activations uint8, weights int8, as quantized towers have them),
           torch._int_mm, the same QDQ graph in OpenVINO
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Literal

import msgspec
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mmalign_runtime.engine.openvino import openvino_core

DType = Literal["float32", "bfloat16", "int8"]
Call = Callable[[], object]

_OPSET = 18
_IR_VERSION = 8


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """(M, K) x (K, N), and where such a product is found."""

    name: str
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n


# Convolutions as products: M is pixels of 8 images, K the kernel's inputs, N its outputs.
SHAPES = (
    Shape("square, 1024", 1024, 1024, 1024),
    Shape("square, 2048", 2048, 2048, 2048),
    Shape("ResNet-50, 3x3 of 64", 8 * 56 * 56, 576, 64),
    Shape("ResNet-50, 3x3 of 256", 8 * 14 * 14, 2304, 256),
    Shape("ResNet-50, 1x1 to 2048", 8 * 7 * 7, 512, 2048),
    Shape("BERT-base, 8 x 128 tokens", 1024, 768, 3072),
    Shape("BERT-base, 1 x 8 tokens", 8, 768, 3072),
)


class Kernel(msgspec.Struct, frozen=True):
    """One way to multiply: engine, operator, type, and what makes a call of a shape with so many threads."""

    engine: str
    operator: str
    dtype: DType
    make: Callable[[Shape, int], Call]


def kernels() -> Iterator[Kernel]:
    """Yield every way that is installed here."""
    yield Kernel("onnxruntime", "MatMul", "float32", _ort_float)
    yield Kernel("onnxruntime", "MatMulInteger", "int8", _ort_integer)
    yield Kernel("onnxruntime", "QDQ MatMul", "int8", _ort_qdq)
    yield Kernel("torch", "mm", "float32", lambda shape, threads: _torch_mm(shape, threads, torch.float32))
    yield Kernel("torch", "mm", "bfloat16", lambda shape, threads: _torch_mm(shape, threads, torch.bfloat16))
    yield Kernel("torch", "_int_mm", "int8", _torch_int)
    if find_spec("openvino") is not None:
        yield Kernel("openvino", "MatMul", "float32", lambda shape, threads: _openvino(shape, threads, "f32"))
        yield Kernel("openvino", "MatMul", "bfloat16", lambda shape, threads: _openvino(shape, threads, "bf16"))
        yield Kernel("openvino", "QDQ MatMul", "int8", _openvino_qdq)


def float_graph(shape: Shape) -> ModelProto:
    """Return `a` (M, K) float32 -> (M, N): one MatMul."""
    weights = _weights(shape)
    return _model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])], shape, TensorProto.FLOAT, TensorProto.FLOAT, b=weights
    )


def integer_graph(shape: Shape) -> ModelProto:
    """Return `a` (M, K) uint8 -> (M, N) int32: one MatMulInteger."""
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    return _model([node], shape, TensorProto.UINT8, TensorProto.INT32, b=_int8(shape))


def qdq_graph(shape: Shape) -> ModelProto:
    """Return `a` (M, K) uint8 -> (M, N) uint8: one MatMul between QuantizeLinear and DequantizeLinear."""
    scale = np.float32(0.02)
    nodes = [
        helper.make_node("DequantizeLinear", ["a", "scale", "zero_a"], ["af"]),
        helper.make_node("DequantizeLinear", ["b", "scale", "zero_b"], ["bf"]),
        helper.make_node("MatMul", ["af", "bf"], ["yf"]),
        helper.make_node("QuantizeLinear", ["yf", "scale_y", "zero_a"], ["y"]),
    ]
    constants = {
        "b": _int8(shape),
        "scale": scale,
        "scale_y": np.float32(0.2),
        "zero_a": np.uint8(128),
        "zero_b": np.int8(0),
    }
    return _model(nodes, shape, TensorProto.UINT8, TensorProto.UINT8, **constants)


def _model(nodes: list[NodeProto], shape: Shape, in_type: int, out_type: int, **constants: object) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("a", in_type, [shape.m, shape.k])],
        [helper.make_tensor_value_info("y", out_type, [shape.m, shape.n])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _weights(shape: Shape) -> NDArray[np.generic]:
    return np.random.default_rng(1).standard_normal((shape.k, shape.n), np.float32)


def _int8(shape: Shape) -> NDArray[np.generic]:
    return np.random.default_rng(1).integers(-127, 128, (shape.k, shape.n), np.int8)


def _floats(shape: Shape) -> NDArray[np.generic]:
    return np.random.default_rng(0).standard_normal((shape.m, shape.k), np.float32)


def _bytes(shape: Shape) -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(0, 256, (shape.m, shape.k), np.uint8)


def _ort(model: ModelProto, a: NDArray[np.generic], num_threads: int) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def _ort_float(shape: Shape, num_threads: int) -> Call:
    return _ort(float_graph(shape), _floats(shape), num_threads)


def _ort_integer(shape: Shape, num_threads: int) -> Call:
    return _ort(integer_graph(shape), _bytes(shape), num_threads)


def _ort_qdq(shape: Shape, num_threads: int) -> Call:
    return _ort(qdq_graph(shape), _bytes(shape), num_threads)


def _torch_mm(shape: Shape, num_threads: int, dtype: torch.dtype) -> Call:
    torch.set_num_threads(num_threads)
    a, b = torch.from_numpy(_floats(shape)).to(dtype), torch.from_numpy(_weights(shape)).to(dtype)
    out = torch.empty(shape.m, shape.n, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _torch_int(shape: Shape, num_threads: int) -> Call:
    torch.set_num_threads(num_threads)
    a = torch.from_numpy(np.random.default_rng(0).integers(-127, 128, (shape.m, shape.k), np.int8))
    b = torch.from_numpy(_int8(shape))
    return lambda: torch._int_mm(a, b)


def _openvino(shape: Shape, num_threads: int, precision: str) -> Call:
    return _compiled(float_graph(shape), _floats(shape), num_threads, precision)


def _openvino_qdq(shape: Shape, num_threads: int) -> Call:
    return _compiled(qdq_graph(shape), _bytes(shape), num_threads, "f32")


def _compiled(model: ModelProto, a: NDArray[np.generic], num_threads: int, precision: str) -> Call:
    import openvino  # an extra that need not be there

    core = openvino_core()
    graph = core.read_model(model.SerializeToString())
    options = {
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(graph, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(a))  # a copy: a tensor that shares numpy's memory does not keep it alive
    infer: Call = request.infer
    return infer

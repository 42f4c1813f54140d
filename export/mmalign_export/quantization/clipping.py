"""What a quantized model clips: a small addition to its graph that counts it, and the shares on given items.

The addition is a ModelProto of its own, of a few kilobytes. By the rules of protobuf, its bytes behind the model's are
one model with the nodes and outputs of both: the runtime counts in production without the onnx package, and the model
that serves is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mmalign_export.quantization.convolutions import Bounds
from mmalign_export.quantization.graph import array_of
from mmalign_runtime.clipping import ClippedTensor, TowerClipping, clipped_shares
from mmalign_runtime.engine.session import Feeds

_LEVELS = 255
_OUTPUT = "clipped_shares"


def find_clipping(contents: bytes, bounds: Mapping[str, Bounds]) -> TowerClipping | None:
    """Return what counts the values that each rounding of a model clips, shares yet unknown; None where none can.

    `bounds` are those of the float model's tensors: a ReLU6 that was folded into a rounding to 0..6 clips nothing that
    float32 would keep. Roundings whose scale is made from the values themselves clip nothing either.
    """
    graph = ir.from_proto(onnx.load_from_string(contents)).graph
    addition = ModelProto()
    nodes, shares, tensors = addition.graph.node, [], []
    for number, node in enumerate(node for node in graph if node.op_type == "QuantizeLinear"):
        source = node.inputs[0]
        assert source is not None
        name = str(source.name)
        scale, zero_point = float(array_of(node.inputs[1])), int(array_of(node.inputs[2]))
        low, high = -zero_point * scale, (_LEVELS - zero_point) * scale
        least, most = bounds.get(name, (-np.inf, np.inf))
        step = (high - low) / _LEVELS
        # Half a step beyond an end is rounded to it, as between the ends.
        ends = [("Less", low - step / 2)] if least < low - step / 2 else []
        ends += [("Greater", high + step / 2)] if most > high + step / 2 else []
        if not ends or _is_by_token(source):
            continue
        prefix = f"clipping_{number}"
        outside = [_compare(addition, operator, name, end, prefix) for operator, end in ends]
        both = outside[0] if len(outside) == 1 else f"{prefix}_both"
        if len(outside) == 2:
            nodes.append(helper.make_node("Or", outside, [both]))
        nodes.append(helper.make_node("Cast", [both], [f"{prefix}_cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMean", [f"{prefix}_cast"], [f"{prefix}_mean"], keepdims=0))
        nodes.append(helper.make_node("Reshape", [f"{prefix}_mean", "clipping_one"], [f"{prefix}_share"]))
        shares.append(f"{prefix}_share")
        tensors.append(ClippedTensor(name=name, low=low, high=high))
    if not shares:
        return None
    addition.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "clipping_one"))
    nodes.append(helper.make_node("Concat", shares, [_OUTPUT], axis=0))
    addition.graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, [len(shares)]))
    return TowerClipping(addition=addition.SerializeToString(), output=_OUTPUT, tensors=tuple(tensors))


def with_shares(
    found: TowerClipping, contents: bytes, calibration: Sequence[Feeds], evaluation: Sequence[Feeds]
) -> TowerClipping:
    """Return the same with the shares that are clipped of calibration and of evaluation items, fed one at a time."""
    ours, theirs = (clipped_shares(contents, found, feeds) for feeds in (calibration, evaluation))
    tensors = (
        msgspec.structs.replace(tensor, calibration=float(ours[at]), evaluation=float(theirs[at]))
        for at, tensor in enumerate(found.tensors)
    )
    return msgspec.structs.replace(found, tensors=tuple(tensors))


def _is_by_token(source: ir.Value) -> bool:
    """Whether what is rounded was divided by the largest of its token."""
    maker = source.producer()
    return str(source.name).endswith("_unit") and maker is not None and maker.op_type == "Div"


def _compare(addition: ModelProto, operator: str, source: str, end: float, prefix: str) -> str:
    name = f"{prefix}_{operator.lower()}"
    addition.graph.initializer.append(numpy_helper.from_array(np.array(end, np.float32), f"{name}_end"))
    addition.graph.node.append(helper.make_node(operator, [source, f"{name}_end"], [name]))
    return name

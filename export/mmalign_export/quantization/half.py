"""float16 for GPUs: weights and products in half, inputs, vectors and their normalisation in float32."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, shape_inference
from onnxruntime.transformers.float16 import convert_float_to_float16

from mmalign_export.errors import QuantizationError

# What multiplies by weights: behind the last of these a vector is only brought to unit length.
_PRODUCTS = frozenset({"Gemm", "MatMul", "Conv"})


def to_half(model: ModelProto) -> ModelProto:
    """Return the model in float16 by onnxruntime's own converter, but for what follows the last product.

    Constants beyond float16, as attention masks have them, become its least and largest. Raises QuantizationError for
    a model without products.
    """
    whole = shape_inference.infer_shapes(model)
    nodes = list(whole.graph.node)
    products = [index for index, node in enumerate(nodes) if node.op_type in _PRODUCTS]
    if not products:
        raise QuantizationError(f"the model has no {', '.join(sorted(_PRODUCTS))}: nothing to halve")
    body, tail = nodes[: products[-1] + 1], nodes[products[-1] + 1 :]
    # Told to leave nodes in float32, the converter would still round whatever passes between them.
    outputs = list(whole.graph.output)
    constants = _own_constants(whole, tail)
    _set(whole, body, _passed_on(whole, body, tail))
    halved: ModelProto = convert_float_to_float16(whole, keep_io_types=True)
    _set(halved, [*halved.graph.node, *tail], outputs)
    halved.graph.initializer.extend(constants)
    del halved.graph.value_info[:]  # the converter took the tail's for float16
    return halved


def _own_constants(model: ModelProto, tail: Sequence[NodeProto]) -> list[TensorProto]:
    """Give the tail constants of its own, and return them: the others are rounded."""
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    own: dict[str, TensorProto] = {}
    for node in tail:
        for position, name in enumerate(node.input):
            if name in named:
                own[name] = TensorProto.FromString(named[name].SerializeToString())
                own[name].name = node.input[position] = f"{name}_float32"
    return list(own.values())


def _passed_on(model: ModelProto, body: Sequence[NodeProto], tail: Sequence[NodeProto]) -> list[ValueInfoProto]:
    """Return what the tail takes from the body."""
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    made = {name for node in body for name in node.output}
    taken = dict.fromkeys(name for node in tail for name in node.input if name in made)
    return [known[name] for name in taken] if tail else list(model.graph.output)


def _set(model: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]) -> None:
    kept, wanted = list(nodes), list(outputs)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.output[:]
    model.graph.output.extend(wanted)

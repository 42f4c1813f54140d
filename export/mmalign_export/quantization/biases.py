"""Corrects the biases of convolutions for what rounding their weights adds to each channel's mean.

A channel's rounding errors do not cancel where its inputs are not centred, as they are not behind a ReLU: the channel
is shifted, for every image alike, and the shift is known beforehand (Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", section 4.2). Letters: C channels in, O channels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from mmalign_export.quantization.activations import watched
from mmalign_export.quantization.weight_levels import largest_level
from mmalign_runtime.engine.session import Feeds

# Channels of zeros have no step; whatever stands in its place, they round to zeros.
_LEAST_STEP = np.finfo(np.float32).tiny


def record_means(model: ModelProto, items: Sequence[Feeds]) -> dict[str, NDArray[np.float32]]:
    """Run the model on items, one image or text each, and return the channel means, (C,), of what is convolved."""
    convolved = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    names = sorted(convolved - {value.name for value in model.graph.input})
    session = watched(model, names)
    sums: dict[str, NDArray[np.float64]] = {}
    for feeds in items:
        found = dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}
        for name in convolved:
            values = found[name] if name in found else feeds[name]  # (1, C, ...)
            means = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + means
    return {name: (total / len(items)).astype(np.float32) for name, total in sums.items()}


def with_corrected_biases(
    model: ModelProto, means: Mapping[str, NDArray[np.float32]], excluded: frozenset[str]
) -> ModelProto:
    """Return a float model whose biases make up for the rounding to come, of all convolutions but the `excluded`.

    What pads an image at its edges counts as if it had the mean of its channel.
    """
    corrected = ModelProto()
    corrected.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        is_constant = all(name in constants for name in node.input[1:] if name)
        if node.op_type == "Conv" and node.name not in excluded and is_constant:
            shift = _shift(numpy_helper.to_array(constants[node.input[1]]), means[node.input[0]])
            _take_off(corrected, constants, node, shift)
    return corrected


def _shift(weight: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by how much rounding raises each channel's mean, (O,), of weights (O, C / groups, ...)."""
    lost = (rounded_weight(weight) - weight).reshape(*weight.shape[:2], -1).sum(axis=2)  # (O, C / groups)
    num_groups = len(means) // weight.shape[1]
    by_group = means.reshape(num_groups, 1, -1)  # (groups, 1, C / groups)
    shift: NDArray[np.float32] = (lost.reshape(num_groups, -1, weight.shape[1]) * by_group).sum(axis=2).ravel()
    return shift


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights (O, ...) as eight signed bits with a scale a channel keep them."""
    axes = tuple(range(1, weight.ndim))
    step = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / largest_level(), _LEAST_STEP)
    rounded: NDArray[np.float32] = np.round(weight / step) * step
    return rounded


def _take_off(
    model: ModelProto, constants: dict[str, TensorProto], node: NodeProto, shift: NDArray[np.float32]
) -> None:
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = numpy_helper.to_array(constants[node.input[2]]) if has_bias else np.zeros(len(shift), np.float32)
    name = f"{node.output[0]}_corrected_bias"  # of its own: two convolutions may share one
    tensor = numpy_helper.from_array((bias - shift).astype(np.float32), name)
    model.graph.initializer.append(tensor)
    constants[name] = tensor
    del node.input[2:]
    node.input.append(name)

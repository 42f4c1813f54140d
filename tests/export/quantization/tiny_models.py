"""Small models whose answers are known, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mmalign.figures.retrieval import Recall
from mmalign_export.quantization.report import QuantizationReport, Trial
from mmalign_export.quantization.trial import Speed
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Feeds, SessionOptions
from mmalign_runtime.spec import Modality

OPTIONS = SessionOptions("cpu", thread_pool(1))
NUM_CHANNELS, EMBED_DIM, SIDE = 8, 16, 16

RECALL = Recall(at_1=0.5, at_5=0.75, at_10=1.0, median_rank=1.5)


def observe(model: ModelProto, names: Sequence[str], feeds: Feeds) -> list[NDArray[np.float32]]:
    """Run a model and return what some of its inner tensors held."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    have = {output.name for output in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), dict(feeds))  # type: ignore[no-any-return]


def constant(model: ModelProto, name: str) -> NDArray[np.generic]:
    """Return one of a model's constants."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def graph_model(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], shapes: dict[str, list[str | int]]
) -> ModelProto:
    """Return a model of float32: the first of `shapes` is its input, the last its output."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", infos[:1], infos[-1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def convolutional() -> ModelProto:
    """Return pixel_values (B, 3, 16, 16) -> image_embeds (B, 16): a convolution, a depthwise one, Clip and Relu."""
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[np.generic]] = {
        "w1": rng.normal(0, 0.4, (NUM_CHANNELS, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.2, NUM_CHANNELS).astype(np.float32),
        "w2": (
            rng.normal(0, 0.4, (NUM_CHANNELS, 1, 3, 3)) * np.geomspace(0.1, 10, NUM_CHANNELS)[:, None, None, None]
        ).astype(np.float32),
        "b2": rng.normal(0, 0.2, NUM_CHANNELS).astype(np.float32),
        "w3": rng.normal(0, 0.4, (NUM_CHANNELS, EMBED_DIM)).astype(np.float32),
        "b3": rng.normal(0, 0.2, EMBED_DIM).astype(np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "last": np.array([1], np.int64),
    }
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["pixel_values", "w1", "b1"], ["c1"], "first", pads=pads, strides=[2, 2]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["r1"], "relu6"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=pads, group=NUM_CHANNELS),
        helper.make_node("Relu", ["c2"], ["r2"], "relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], "flat"),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["projected"], "projection"),
        helper.make_node("ReduceL2", ["projected", "last"], ["length"], "norm", keepdims=1),
        helper.make_node("Div", ["projected", "length"], ["image_embeds"], "unit"),
    ]
    return graph_model(nodes, constants, {"pixel_values": ["B", 3, SIDE, SIDE], "image_embeds": ["B", EMBED_DIM]})


def fed(images: Sequence[NDArray[np.float32]]) -> list[Feeds]:
    """Return images as the model takes them."""
    return [{"pixel_values": image} for image in images]


def pictures(count: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return prepared images, (1, 3, 16, 16) each."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)]


def turned(angle: float, *, moves: bool = False, value: float = 1.0) -> ModelProto:
    """Return x (B, 2) -> unit vectors turned by an angle: the cosine to an angle of 0 is cos(angle), exactly.

    With `moves`, the mean of the batch is added: what a batch-mate changes.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    constants: dict[str, NDArray[np.generic]] = {
        "turn": (value * np.array([[cosine, sine], [-sine, cosine]])).astype(np.float32),
        "rows": np.array([0], np.int64),
        "last": np.array([1], np.int64),
    }
    nodes = [helper.make_node("MatMul", ["x", "turn"], ["y"])]
    if moves:
        nodes += [
            helper.make_node("ReduceMean", ["y", "rows"], ["mean"]),
            helper.make_node("Add", ["y", "mean"], ["z"]),
        ]
    source = "z" if moves else "y"
    nodes += [
        helper.make_node("ReduceL2", [source, "last"], ["length"], keepdims=1),
        helper.make_node("Div", [source, "length"], ["embeds"]),
    ]
    return graph_model(nodes, constants, {"x": ["B", 2], "embeds": ["B", 2]})


def make_trial(tower: Modality, recipe: str = "static", *, refused: str = "", cosine: float = 0.999) -> Trial:
    """Return a trial that was twice as fast as float32."""
    return Trial(
        tower=tower,
        recipe=recipe,
        excluded=(),
        speeds=(Speed(1, 1.0, 2.0), Speed(8, 4.0, 8.0)),
        mean_cosine=cosine,
        min_cosine=cosine - 0.01,
        golden_cosine=cosine - 0.02,
        golden_mean=cosine,
        golden_worst="portrait 9x16",
        recall=(RECALL, RECALL),
        lost_points={1: 0.25, 5: 0.0, 10: -0.5},
        moved_in_batch=0.0,
        size_bytes=1_000_000,
        resident_mb=None,
        refused=refused,
    )


def make_report(*towers: Modality) -> QuantizationReport:
    """Return a report in which each tower has a chosen and a refused candidate."""
    chosen = {tower: make_trial(tower) for tower in towers}
    refused = [make_trial(tower, "bold", refused="outside the budget", cosine=0.9) for tower in towers]
    return QuantizationReport(
        date="2026-11-24T00:00:00+00:00",
        cpu="a processor",
        engine="onnxruntime",
        engine_version="1.32",
        num_threads=1,
        calibration="pairs.csv",
        evaluation="pairs.csv",
        num_images=8,
        num_captions=8,
        budget="recall@1=0.5,cosine=0.995,golden=0.97",
        least_golden_cosine=0.97,
        fp32_recall=(RECALL, RECALL),
        fp32_size_bytes=dict.fromkeys(towers, 4_000_000),
        fp32_resident_mb=dict.fromkeys(towers, 12.0),
        trials=(*chosen.values(), *refused),
        chosen=chosen,
        pair_recall=(RECALL, RECALL),
        pair_lost_points={1: 0.25, 5: 0.0, 10: -0.5},
    )

"""Operations are counted as on paper, products compute what they say, ceilings are the highest of their kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.clock import laps
from benchmarks.harness.environment import Watch
from benchmarks.harness.results import read_result, write_result
from benchmarks.performance.ceilings import memory_ms, share
from benchmarks.roofline.flops import count
from benchmarks.roofline.memory import copy_gb_s, read_gb_s
from benchmarks.roofline.products import Shape, kernels, qdq_graph
from benchmarks.roofline.results import Bandwidth, Product, Roofline, Tower, ceiling


def roofline() -> Roofline:
    products = [
        Product("onnxruntime", "MatMul", "float32", "square", 2, 100.0, 90.0),
        Product("torch", "mm", "float32", "square", 2, 120.0, 110.0),
        Product("torch", "mm", "float32", "square", 1, 500.0, 400.0),
    ]
    towers = [Tower("demo", "image", "fp32", (8, 3, 4, 4), 10.0, 0.6, 50.0, 60.0)]
    return Roofline(Watch("x", 2).card(), products, [Bandwidth(2, 8.0, 10.0)], towers)


def constant(name: str, *dims: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(dims, np.float32), name)


def write(path: Path, nodes: list[onnx.NodeProto], *constants: TensorProto) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


def test_operations_are_counted_as_on_paper(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "weights"], ["m"]),
        helper.make_node("Gemm", ["m", "more"], ["y"], transB=1),
    ]
    shapes = (constant("kernel", 6, 2, 3, 3), constant("weights", 6, 5), constant("more", 7, 5))
    cost = count(write(tmp_path / "m.onnx", nodes, *shapes), {"x": np.ones((3, 4, 8, 8), np.float32)})
    convolution = 2 * (3 * 6 * 4 * 4) * (2 * 3 * 3)
    assert cost.flops == {"Conv": convolution, "MatMul": 2 * 3 * 6 * 5, "Gemm": 2 * 3 * 5 * 7}
    assert cost.total == sum(cost.flops.values())
    assert cost.weight_bytes == 4 * (6 * 2 * 9 + 30 + 35)


def test_quantized_weights_count_a_byte(tmp_path: Path) -> None:
    shape = Shape("small", 3, 16, 5)
    onnx.save(qdq_graph(shape), tmp_path / "m.onnx")
    cost = count(tmp_path / "m.onnx", {"a": np.zeros((3, 16), np.uint8)})
    assert cost.total == shape.flops == 2 * 3 * 16 * 5
    assert cost.weight_bytes == 16 * 5 + 4 + 4 + 1 + 1


def test_a_table_that_rows_are_looked_up_in_is_no_weight_that_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("MatMul", ["e", "weights"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, constant("table", 100, 6), constant("weights", 6, 5))
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT64, ["tokens"]))
    onnx.save(model, path)
    cost = count(path, {"x": np.array([1, 2, 3])})
    assert (cost.total, cost.weight_bytes) == (2 * 3 * 6 * 5, 4 * 6 * 5)


def test_the_quantized_product_is_the_product() -> None:
    shape = Shape("small", 3, 16, 5)
    session = onnxruntime.InferenceSession(qdq_graph(shape).SerializeToString(), providers=["CPUExecutionProvider"])
    a = np.random.default_rng(0).integers(0, 256, (3, 16), np.uint8)
    b = numpy_helper.to_array(next(t for t in qdq_graph(shape).graph.initializer if t.name == "b")).astype(float)
    exact = ((a.astype(float) - 128) * 0.02) @ (b * 0.02)
    found = (session.run(None, {"a": a})[0].astype(float) - 128) * 0.2
    assert np.abs(found - exact).max() <= 0.11  # half a step


def test_every_kernel_that_is_here_runs() -> None:
    made = {(kernel.engine, kernel.dtype): kernel.make(Shape("small", 32, 64, 32), 1) for kernel in kernels()}
    assert {("onnxruntime", "float32"), ("onnxruntime", "int8"), ("torch", "bfloat16")} <= made.keys()
    for call in made.values():
        call()


def test_the_ceiling_is_of_one_type_and_all_threads() -> None:
    found = roofline()
    assert ceiling(found, "float32", 2).engine == "torch"
    assert ceiling(found, "float32", 2, "onnxruntime").best_gops == 100.0
    with pytest.raises(ValueError, match="no int8 product"):
        ceiling(found, "int8", 2)


def test_shares_are_of_the_ceiling() -> None:
    found = roofline()
    assert share(found, found.towers[0], "onnxruntime") == pytest.approx(0.6)
    assert share(found, found.towers[0], None) == pytest.approx(0.5)
    assert memory_ms(found, found.towers[0]) == pytest.approx(5.0)


def test_a_roofline_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_result(roofline(), tmp_path / "r.json")
    assert read_result(tmp_path / "r.json", Roofline).products == roofline().products


def test_laps_and_bandwidth_are_measured() -> None:
    calls: list[int] = []
    found = laps(lambda: calls.append(1), 0.0)
    assert len(calls) == 8
    assert 0 <= found.best_s <= found.median_s
    assert copy_gb_s(1, 0.0, 2**16) > 0
    assert read_gb_s(1, 0.0, 2**16) > 0

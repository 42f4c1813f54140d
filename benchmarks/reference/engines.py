"""The engines that are compared, each as it ships: the exporter's compiled paths, and the runtime's own session.

All of them take numpy arrays and give numpy arrays (PyTorch shares the memory), and use the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reference.interleave import Engine, EngineFunction
from benchmarks.reference.workload import eager_function
from mmalign.dual_model import ModelTower, TowerFunction
from mmalign_export.to_compiled import compile_tower, load_aoti, package_aoti
from mmalign_export.to_onnx import OPSET_VERSION, export_onnx
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Feeds, SessionOptions
from mmalign_runtime.spec import Modality

EngineName: TypeAlias = Literal["eager", "compile", "aoti", "onnx"]


def prepare_torch(num_threads: int) -> None:
    """Give PyTorch the threads that onnxruntime gets, and let torch.compile make a kernel of its own for each shape.

    By itself it does so for batches of one and for the size it meets first, and gives all others one kernel for any
    size: what is measured would depend on the order of the warm-up. Call this before anything is compiled, since the
    number of threads becomes part of the code.
    """
    torch.set_num_threads(num_threads)
    torch._dynamo.config.automatic_dynamic_shapes = False


def build_engine(name: EngineName, modality: Modality, tower: ModelTower, work_dir: Path, num_threads: int) -> Engine:
    """Return one engine for one tower, exported or packaged into `work_dir` where it has a file."""
    if name == "onnx":
        path = work_dir / f"{modality}.onnx"
        export_onnx(tower, path, OPSET_VERSION)
        return Engine(name, modality, OnnxSession(path, path.name, SessionOptions("cpu", thread_pool(num_threads))).run)
    if name == "aoti":
        path = work_dir / f"{modality}.pt2"
        package_aoti(tower, path)
        return Engine(name, modality, _on_arrays(load_aoti(path), tower.input_names))
    function = compile_tower(tower) if name == "compile" else eager_function(tower)
    return Engine(name, modality, _on_arrays(function, tower.input_names))


def _on_arrays(function: TowerFunction, input_names: Sequence[str]) -> EngineFunction:
    def run(feeds: Feeds) -> NDArray[np.float32]:
        return function(*(torch.from_numpy(feeds[name]) for name in input_names)).numpy()

    return run

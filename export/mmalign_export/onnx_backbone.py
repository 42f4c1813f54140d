"""A tower that is an ONNX graph already: onnxruntime computes its vectors, and nothing of it is traced or trained.

It stands where a backbone of PyTorch stands, so that golden cases, proof and parity need to know nothing of it; what
writes towers takes its graph as it is.
Shapes: B batch, D embedding.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir
import onnxruntime
import torch
from torch import Tensor, nn

from mmalign_export.onnx_file import write_onnx
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.engine.threads import available_threads

# onnxruntime's errors share no root but Exception.
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
ONNXRUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(RuntimeError, MemoryError, ValueError),
    *(_STATE.EPFail, _STATE.Fail, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.InvalidProtobuf),
    *(_STATE.NoSuchFile, _STATE.NotImplemented, _STATE.RuntimeException),
)
# Errors are raised, and told in our own words.
_FATAL_ONLY = 4


class OnnxBackbone(nn.Module):
    """The graph's inputs, in their order, -> unit vectors (B, D), as onnxruntime gives them on the CPU.

    `digest` is of the graph with its weights: part of what defines the space.
    """

    def __init__(self, graph: onnx_ir.Model) -> None:
        super().__init__()
        self.graph = graph
        self._names = [str(value.name) for value in graph.graph.inputs]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write_onnx(graph, Path(folder) / "tower.onnx")
            self.digest = "".join(sha256_of_file(path) for path in sorted(Path(folder).iterdir()))
            self._session = open_session(Path(folder) / "tower.onnx")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return vectors."""
        feeds = {name: tensor.numpy() for name, tensor in zip(self._names, inputs, strict=True)}
        return torch.from_numpy(cast("np.ndarray", self._session.run(None, feeds)[0]))


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return an ONNX file, loaded for the CPU. Raises one of `ONNXRUNTIME_ERRORS`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = available_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

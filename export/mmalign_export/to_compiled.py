"""Compiled towers for callers who have torch: torch.compile in this process, AOTInductor packages on disk.

Both answer to the signature of the traced modules, and both are held to the same parity as the ONNX files.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from mmalign.dual_model import ModelTower, TowerFunction


def compile_tower(tower: ModelTower) -> TowerFunction:
    """Return the tower compiled in this process, weights frozen, batch and length dynamic as its signature says.

    Not `dynamic=True`: that makes the image's sides symbolic too, and sympy then simplifies EfficientNet's paddings for
    more than nine minutes. A size of one is compiled by itself.
    """
    compiled = torch.compile(tower.module, options={"freezing": True})
    dynamic = [list(dims) for dims in tower.example().dynamic_shapes]

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        for tensor, dims in zip(inputs, dynamic, strict=True):
            torch._dynamo.maybe_mark_dynamic(tensor, dims)
        with torch.no_grad():  # freezing looks for no_grad, and does nothing under inference_mode
            return cast("torch.Tensor", compiled(*inputs))

    return run


def package_aoti(tower: ModelTower, path: Path) -> None:
    """Compile the tower ahead of time to a .pt2 package, batch and length dynamic. It fits this kind of machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    example = tower.example()
    with torch.no_grad():
        program = torch.export.export(tower.module, example.inputs, dynamic_shapes=(example.dynamic_shapes,))
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def load_aoti(path: Path) -> TowerFunction:
    """Load a .pt2 package."""
    package = torch._inductor.aoti_load_package(str(path))

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return cast("torch.Tensor", package(*inputs))

    return run

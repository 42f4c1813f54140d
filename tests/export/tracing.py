"""What makes tracing quicker for tests that are not about it: it is most of an export's time."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import onnx_ir
import pytest
from torch._export import utils as export_utils
from torch.fx import config as fx_config
from torch.onnx._internal.exporter import _registration

from mmalign.dual_model import ModelGraph, ModelTower
from mmalign_export import to_onnx

Make: TypeAlias = Callable[[Path], object]


class Store:
    """Where traces lie for all processes of a session: set by its conftest to `made_once` for files by their names."""

    made_once: Callable[[str, Make], Path]


@contextmanager
def equal_towers_traced_once() -> Iterator[None]:
    """Trace a tower once for all exports of a session that are made inside, in whatever process of xdist's."""
    trace = to_onnx._trace

    def remembered(tower: ModelTower | ModelGraph, opset_version: int) -> onnx_ir.Model:
        name = f"{_digest(tower, opset_version)}.onnx"
        path = Store.made_once(name, lambda path: onnx_ir.save(trace(tower, opset_version), path))
        return onnx_ir.load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "_trace", remembered)
        yield


def _digest(tower: ModelTower | ModelGraph, opset_version: int) -> str:
    """Of the architecture, the weights and the inputs: enough for models of the tests, which run nothing else."""
    definition = tower.definition if isinstance(tower, ModelTower) else ""
    words = (tower.module, definition, tower.inputs, tower.output_name, opset_version)
    digest = hashlib.sha256(" ".join(map(str, words)).encode())
    for tensor in tower.module.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Let torch's exporter read what operators there are once, and not for every trace; and keep no stack of a node.

    They are the source of onnxscript's five hundred, and those that torch.export takes apart. Stacks are left out of
    what is written anyway.
    """
    with pytest.MonkeyPatch.context() as patch:
        registry = _registration.ONNXRegistry
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))
        seen = functools.cache(export_utils._materialize_cpp_cia_ops)
        patch.setattr(export_utils, "_materialize_cpp_cia_ops", seen)
        patch.setattr(fx_config, "do_not_emit_stack_traces", True)
        yield

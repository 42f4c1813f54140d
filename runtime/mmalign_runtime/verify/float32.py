"""Does the provider compute in float32? And did it take the nodes that count?

A number that float32 holds and TF32, bfloat16 and float16 do not goes through a convolution and a matrix product, each
with an identity, under the options that serve: it comes out as it went in, or rounded.
"""

from __future__ import annotations

from importlib.resources import files

import msgspec
import numpy as np

from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.session import Model, SessionOptions
from mmalign_runtime.info import RuntimeInfo
from mmalign_runtime.verify.report import CheckResult

PROBE = "float32_probe.onnx"  # made by mmalign_export.probe

# 1 + 2^-12 has 12 bits behind the point: float32 keeps 23, TF32 and float16 10, bfloat16 7.
_NUMBER = np.float32(1 + 2**-12)
_CHANNELS, _SIDE = 64, 32  # enough for tensor cores to be worth their while
# The operators that hold nearly all arithmetic of the towers: on another provider they would cost what was asked for.
_HEAVY = frozenset({"Conv", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm", "Attention", "QLinearConv"})


def check_float32(options: SessionOptions) -> CheckResult:
    """Send the number through, with the engine, on the provider and with the options of `options`."""
    model = Model(files(__package__).joinpath(PROBE).read_bytes(), PROBE, ("x", "kernel", "left"))
    session = find_engine(options.engine).open(model, msgspec.structs.replace(options, cache=False))
    eye = np.eye(_CHANNELS, dtype=np.float32)
    numbers = np.full((1, _CHANNELS, _SIDE, _SIDE), _NUMBER)
    found = session.run({"x": numbers, "kernel": eye[:, :, None, None], "left": eye})
    session.close()
    moved = float(np.abs(found - _NUMBER).max())
    detail = "a convolution and a matrix product keep every bit" if moved == 0 else "computed with a shorter mantissa"
    return CheckResult(name="float32", passed=moved == 0, max_abs_difference=moved, bound=0.0, detail=detail)


def check_placement(info: RuntimeInfo) -> CheckResult:
    """Count the nodes that the provider asked for did not take: none of them may do the heavy arithmetic."""
    elsewhere = [(tower.name, group) for tower in info.towers for group in tower.elsewhere()]
    heavy = [f"{name}: {group.num_nodes} {group.operator}" for name, group in elsewhere if group.operator in _HEAVY]
    total = sum(group.num_nodes for tower in info.towers for group in tower.nodes)
    away = sum(group.num_nodes for _, group in elsewhere)
    asked = info.towers[0].providers[0].name if info.towers else info.provider
    detail = f"{total - away} of {total} nodes on {asked}"
    detail += f"; on another: {', '.join(heavy)}" if heavy else ""
    return CheckResult(name="placement", passed=not heavy, max_abs_difference=0.0, bound=0.0, detail=detail)

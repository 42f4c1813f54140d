"""Whether this processor computes eight-bit products as they are.

x86 processors without VNNI add two products of eight bits in sixteen, and cut off what does not fit. An int8 tower then
gives other vectors than on the machine where it was quantized and measured. onnxruntime and OpenVINO do so alike.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.resources import files

import numpy as np

from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import SessionOptions

logger = logging.getLogger(__name__)

PROBE = "eight_bit_probe.onnx"  # made by mmalign_export.probe
_SHAPE = (8, 64)
_EXACT = 64 * 255 * 127
# The largest level of a weight of which twice the product with 255, the largest activation, fits in sixteen bits: no
# processor cuts it off. It is also what onnxruntime's `reduce_range` takes.
SEVEN_BITS = 64


@cache
def saturates() -> bool:
    """Return whether onnxruntime's product of the largest numbers of eight bits is cut off on this processor."""
    model = files(__package__).joinpath(PROBE).read_bytes()
    session = OnnxSession(model, PROBE, SessionOptions(provider="cpu", pool=thread_pool(1)))
    found = session.run({"x": np.full(_SHAPE, 255, np.uint8)})
    session.close()
    return bool((found != _EXACT).any())


@cache
def warn_of_saturation(weight_level: int | None) -> None:
    """Log a warning, once a process, where towers with weights up to this level give other vectors than elsewhere."""
    if (weight_level is None or weight_level > SEVEN_BITS) and saturates():
        logger.warning(
            "this processor cuts off sums of eight-bit products (it has no VNNI), so int8 towers that were quantized "
            "elsewhere may give other vectors here. `mmalign verify --precision int8` says by how much; quantized here "
            "they have weights of seven bits, which are not cut off."
        )

"""What tests of eight-bit products need of the processor."""

import pytest

from mmalign_runtime.engine.eight_bits import saturates

exact_eight_bits = pytest.mark.skipif(
    saturates(), reason="this processor cuts off sums of eight-bit products: it has no VNNI"
)

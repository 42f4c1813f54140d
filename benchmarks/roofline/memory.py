"""Memory bandwidth, after STREAM: copy and read arrays that no cache holds."""

from __future__ import annotations

import torch

from benchmarks.harness.clock import laps

# Of float32: 1 GiB an array, twice the last level cache of the largest servers.
_NUM_ELEMENTS = 2**28


def copy_gb_s(num_threads: int, seconds: float, num_elements: int = _NUM_ELEMENTS) -> float:
    """Return GB/s of a copy: bytes read and bytes written."""
    torch.set_num_threads(num_threads)
    source, target = torch.ones(num_elements), torch.zeros(num_elements)
    return 2 * _num_bytes(source) / laps(lambda: target.copy_(source), seconds).best_s / 1e9


def read_gb_s(num_threads: int, seconds: float, num_elements: int = _NUM_ELEMENTS) -> float:
    """Return GB/s of reading: the sum of an array."""
    torch.set_num_threads(num_threads)
    source = torch.ones(num_elements)
    return _num_bytes(source) / laps(source.sum, seconds).best_s / 1e9


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()

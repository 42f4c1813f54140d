"""Which device trains and which one evaluates. What was chosen is logged; what is asked for and absent is an error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from mmalign.config import TrainConfig
from mmalign.distributed import local_device
from mmalign.errors import ConfigError

logger = logging.getLogger(__name__)


def training_device(config: TrainConfig) -> torch.device:
    """Return the device to train on, of several processes each its own GPU.

    Raises ConfigError when CUDA is asked for, by name or by autocast, and absent, or has too few GPUs.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda', and torch sees no CUDA device. Set train.device = 'cpu' or 'auto'.")
    device = local_device(_best_device(config).type)
    if config.autocast == "fp16" and device.type != "cuda":
        raise ConfigError(f"train.autocast is 'fp16', which needs CUDA, and this is {device}. Set 'bf16' or 'off'.")
    logger.info("training on %s", device)
    return device


def evaluation_device(config: TrainConfig) -> torch.device:
    """Return the device to evaluate on; any will do, so that a run trained on CUDA is evaluated without it too."""
    device = _best_device(config)
    logger.info("evaluating on %s", device)
    return device


class _ExactFloat32:
    """Whether somebody in this process wants exact convolutions: the flag is one for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before = ""

    def enter(self) -> None:
        """Set the flag, if nobody has."""
        with self._lock:
            if not self._num_inside:
                self._before, _convolutions().fp32_precision = _convolutions().fp32_precision, "ieee"
            self._num_inside += 1

    def leave(self) -> None:
        """Put back what was there, when nobody is left."""
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                _convolutions().fp32_precision = self._before


_exact_float32 = _ExactFloat32()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Let cuDNN keep all 23 bits of float32 convolutions, as the CPU does: by default it rounds them to TF32's 10."""
    _exact_float32.enter()
    try:
        yield
    finally:
        _exact_float32.leave()


def _convolutions() -> Any:  # noqa: ANN401 - torch's type stub does not have it
    return cast("Any", torch.backends.cudnn).conv


def _best_device(config: TrainConfig) -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")

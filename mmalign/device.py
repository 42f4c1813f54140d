"""Which device trains and which one evaluates. What was chosen is logged; what is asked for and absent is an error."""

from __future__ import annotations

import logging
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


@contextmanager
def exact_float32() -> Iterator[None]:
    """Let cuDNN keep all 23 bits of float32 convolutions, as the CPU does: by default it rounds them to TF32's 10."""
    convolutions = cast("Any", torch.backends.cudnn).conv  # its type stub does not have it
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def _best_device(config: TrainConfig) -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")

"""Which device trains and which one evaluates. What was chosen is logged; what is asked for and absent is an error."""

from __future__ import annotations

import logging

import torch

from mmalign.config import TrainConfig
from mmalign.errors import ConfigError

logger = logging.getLogger(__name__)


def training_device(config: TrainConfig) -> torch.device:
    """Return the device to train on. Raises ConfigError when CUDA is asked for, by name or by autocast, and absent."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda', and torch sees no CUDA device. Set train.device = 'cpu' or 'auto'.")
    device = _best_device(config)
    if config.autocast == "fp16" and device.type != "cuda":
        raise ConfigError(f"train.autocast is 'fp16', which needs CUDA, and this is {device}. Set 'bf16' or 'off'.")
    logger.info("training on %s", device)
    return device


def evaluation_device(config: TrainConfig) -> torch.device:
    """Return the device to evaluate on; any will do, so that a run trained on CUDA is evaluated without it too."""
    device = _best_device(config)
    logger.info("evaluating on %s", device)
    return device


def _best_device(config: TrainConfig) -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")

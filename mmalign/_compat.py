"""Quirks of dependencies, each with the release that makes its workaround deletable.

transformers 5 leaves some functions without types; they are called through names that have them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import cast

import torch
import transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging as transformers_logging

_LOUD = ("transformers", "huggingface_hub")


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Load weights without transformers' bar that counts tensors, its report, and the hub's line for every retry.

    Bars of downloads stay. What the report would say is checked by the caller, what the retries end in is raised.
    Deletable when transformers (5.0 and later) shows that bar in terminals alone.
    """
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    has_bar = transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    _hide_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if has_bar:
            _show_bar()


def _hide_bar() -> None:
    disable: Callable[[], object] = transformers_logging.disable_progress_bar
    has_hub_bars = not are_progress_bars_disabled()
    disable()  # takes the hub's bars with it
    if has_hub_bars:
        enable_progress_bars()


def _show_bar() -> None:
    enable: Callable[[], object] = transformers_logging.enable_progress_bar
    enable()


def encoder_from_config(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """Return the encoder of a configuration: random weights, float32 whatever dtype the configuration names."""
    build: Callable[..., object] = transformers.AutoModel.from_config
    return cast("transformers.PreTrainedModel", build(config, dtype=torch.float32))

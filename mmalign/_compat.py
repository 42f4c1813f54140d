"""Quirks of dependencies, each with the release that makes its workaround deletable.

transformers 5 leaves some functions without types; they are called through names that have them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
import transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

# What torch.export raises on a model that it cannot trace: errors of its own, which share no class, and the model's.
TRACING_ERRORS = (
    torch._dynamo.exc.TorchDynamoException,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    KeyError,
    AssertionError,
    NotImplementedError,
)

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
    build: Callable[..., object] = _auto_class(config).from_config
    return cast("transformers.PreTrainedModel", build(config, dtype=torch.float32))


def encoder_from_pretrained(
    source: str, subfolder: str, config: transformers.PretrainedConfig
) -> tuple[transformers.PreTrainedModel, dict[str, list[str]]]:
    """Return the encoder in a folder or on the hub, float32, and what transformers says about its tensors."""
    load: Callable[..., object] = _auto_class(config).from_pretrained
    # float32 whatever the file holds: transformers 5 would take over its dtype.
    loaded = load(source, subfolder=subfolder, dtype=torch.float32, output_loading_info=True)
    return cast("tuple[transformers.PreTrainedModel, dict[str, list[str]]]", loaded)


def _auto_class(
    config: transformers.PretrainedConfig,
) -> type[transformers.AutoModel] | type[transformers.AutoModelForTextEncoding]:
    """Return what builds the encoder alone: AutoModel gives T5 with its decoder."""
    has_encoder = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    return transformers.AutoModelForTextEncoding if has_encoder else transformers.AutoModel


def hub_file(repository: str, file: str) -> Path | None:
    """Return a file of the hub, from the cache or fetched; None when the repository lacks it or is not reached.

    Raises OSError when there is no such repository.
    """
    fetch: Callable[..., str | None] = cached_file
    found = fetch(
        repository, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if found is None else Path(found)

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
import transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

from mmalign._compat import encoder_from_config, quiet_loading


@pytest.fixture
def hub_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)


def test_loading_is_quiet_and_downloads_keep_their_bars(hub_logger: logging.Logger) -> None:
    with quiet_loading():
        assert not transformers_logging.is_progress_bar_enabled()
        assert not are_progress_bars_disabled()
        assert hub_logger.level == logging.ERROR
    assert transformers_logging.is_progress_bar_enabled()
    assert hub_logger.level == logging.DEBUG


def test_settings_come_back_after_a_failure_too(hub_logger: logging.Logger) -> None:
    with pytest.raises(OSError, match="no network"), quiet_loading():
        raise OSError("no network")
    assert transformers_logging.is_progress_bar_enabled()
    assert hub_logger.level == logging.DEBUG


def test_encoder_is_float32_whatever_its_configuration_says() -> None:
    config = transformers.BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    config.dtype = torch.float16
    assert encoder_from_config(config).dtype == torch.float32

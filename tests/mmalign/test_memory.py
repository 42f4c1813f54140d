from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmalign.config import Config
from mmalign.errors import ConfigError, TrainingError
from mmalign.memory import within_memory
from mmalign.training import train


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.empty(10**13), r"can't allocate memory: you tried to allocate 40000000000000 bytes"),
        (lambda: np.empty(10**14, np.float32), r"Unable to allocate 364\. TiB for an array"),
        (lambda: torch.empty(10**20), "a size does not fit in 64 bits"),
        (lambda: nn.Linear(2**40, 2**40), "a size does not fit in 64 bits"),
        (lambda: bytearray(2**62), "none was left"),
    ],
)
def test_an_array_that_no_memory_holds_is_one_named_error(make: Callable[[], object], reason: str) -> None:
    expected = rf"^it needs more memory than there is: {reason}.*\. Ask for less\.$"
    with pytest.raises(ConfigError, match=expected), within_memory("it", "Ask for less.", ConfigError):
        make()


@pytest.mark.parametrize(
    "error", [RuntimeError("no kernel"), ValueError("overflow of a float"), ConfigError("out of memory")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, within_memory("it", "Ask for less.", TrainingError):
        raise error
    assert raised.value is error


def test_a_run_that_the_memory_does_not_hold_says_what_to_make_smaller(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.training.train_run.Trainer", lambda *parts: torch.empty(10**13))
    with pytest.raises(TrainingError, match=r"^the run needs more memory .* Choose a smaller train\.batch_size, "):
        train(make_config(), tmp_path / "run")

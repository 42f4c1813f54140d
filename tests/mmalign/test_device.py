from __future__ import annotations

import pytest
import torch

from mmalign.config import TrainConfig
from mmalign.device import evaluation_device, exact_float32, training_device
from mmalign.errors import ConfigError


@pytest.fixture(params=[False, True], ids=["without CUDA", "with CUDA"])
def has_cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return bool(request.param)


def test_auto_takes_cuda_where_there_is_one(has_cuda: bool) -> None:
    assert training_device(TrainConfig()).type == ("cuda" if has_cuda else "cpu")
    assert training_device(TrainConfig(device="cpu")).type == "cpu"


def test_cuda_that_is_asked_for_and_absent_is_an_error(has_cuda: bool) -> None:
    if has_cuda:
        assert training_device(TrainConfig(device="cuda", autocast="bf16")).type == "cuda"
        return
    with pytest.raises(ConfigError, match=r"train\.device is 'cuda', and torch sees no CUDA device"):
        training_device(TrainConfig(device="cuda"))


def test_fp16_needs_cuda_and_bf16_does_not(has_cuda: bool) -> None:
    with pytest.raises(ConfigError, match=r"train\.autocast is 'fp16', which needs CUDA.* Set 'bf16' or 'off'"):
        training_device(TrainConfig(device="cpu", autocast="fp16"))
    assert training_device(TrainConfig(device="cpu", autocast="bf16")).type == "cpu"


def test_a_run_trained_on_cuda_is_evaluated_anywhere(has_cuda: bool) -> None:
    config = TrainConfig(device="cuda", autocast="fp16")
    assert evaluation_device(config).type == ("cuda" if has_cuda else "cpu")


def test_exact_convolutions_end_with_the_last_of_several_threads() -> None:
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    first, second = exact_float32(), exact_float32()  # entered and left crosswise, as threads do
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert convolutions.fp32_precision == "ieee"
    second.__exit__(None, None, None)
    assert convolutions.fp32_precision == before

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mmalign.checkpoints.tensors import read_tensors, write_tensors
from mmalign.fingerprint import digest_state, digest_texts
from mmalign.model import DualEncoder

MakeModel = Callable[..., DualEncoder]


def test_saving_again_keeps_the_digest(make_model: MakeModel, tmp_path: Path) -> None:
    state = make_model().state_dict()
    write_tensors(tmp_path / "a.safetensors", dict(reversed(state.items())), {"note": "later"})
    assert digest_state(read_tensors(tmp_path / "a.safetensors").tensors) == digest_state(state)


def test_dtype_shape_and_name_count() -> None:
    tensor = torch.zeros(4)
    states = [{"a": tensor}, {"b": tensor}, {"a": tensor.reshape(2, 2)}, {"a": tensor.int()}, {"a": torch.zeros(0)}]
    assert len({digest_state(state) for state in states}) == len(states)


def test_where_a_text_ends_counts() -> None:
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], ["\udce4"]]
    assert len({digest_texts(each) for each in texts}) == len(texts)

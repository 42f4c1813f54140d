from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mmalign.checkpoints.tensors import read_tensors, write_tensors
from mmalign.errors import CheckpointError
from tests.trials import killed, num_trials

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "count": torch.tensor(7),
    "half": torch.ones(2, dtype=torch.bfloat16),
}


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"note": "näher"})
    file = read_tensors(tmp_path / "a.safetensors")
    assert file.metadata["note"] == "näher"
    assert file.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(file.tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())


def test_a_file_of_no_tensors_can_be_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {}, {})
    assert read_tensors(tmp_path / "a.safetensors").tensors == {}


def test_tied_tensors_are_written_both(tmp_path: Path) -> None:
    tied = torch.ones(4)
    write_tensors(tmp_path / "a.safetensors", {"one": tied, "two": tied, "part": tied[:2]}, {})
    assert torch.equal(read_tensors(tmp_path / "a.safetensors").tensors["part"], torch.ones(2))


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {})
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(TypeError, match=r"metadata|argument"):
        write_tensors(tmp_path / "a.safetensors", TENSORS, {"step": 3})  # type: ignore[dict-item]
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_file_is_a_named_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read: .*Restore it"):
        read_tensors(path)


def test_missing_file_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"b\.safetensors cannot be read"):
        read_tensors(tmp_path / "b.safetensors")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("mmalign.checkpoints.tensors.save_file", fail)
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be written: No space left.*--resume"):
        write_tensors(tmp_path / "a.safetensors", TENSORS, {})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "a.safetensors"
    write_tensors(path, TENSORS, {})
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be written: .*--resume"):
        write_tensors(path, {"weight": torch.zeros(1000, 1000)}, {})
    assert list(small_disk.iterdir()) == [path]
    assert read_tensors(path).tensors.keys() == TENSORS.keys()


def test_killed_at_any_moment_it_leaves_a_whole_file_of_one_write(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.safetensors", random.Random(0)

    def write(number: int) -> None:
        number += int(read_tensors(path).metadata["number"])
        values = torch.from_numpy(np.full(100_000, number, np.float32))
        write_tensors(path, {"a": values}, {"number": str(number + 1)})

    write_tensors(path, {"a": torch.zeros(100_000)}, {"number": "1"})
    for _ in range(num_trials(8)):
        killed(write, draw.uniform(0, 0.05))
        file = read_tensors(path)
        assert file.tensors["a"].unique().tolist() == [float(int(file.metadata["number"]) - 1)]
    assert int(file.metadata["number"]) > 1, "nothing was written before a kill"

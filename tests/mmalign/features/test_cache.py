from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.multiprocessing import reductions

from mmalign.errors import ConfigError
from mmalign.features.cache import FeatureCache, MappedRows

SHAPE = (2, 3)
KEY = ["image", b"x"]
# Two processes that keep the same features again and again, and a reader between them. They import torch once.
WRITE = """
import os, sys, torch
from pathlib import Path
from mmalign.features.cache import FeatureCache
folder = Path(sys.argv[1])
other = os.fork()
for _ in range(60):
    for path in folder.glob("*.npy"):
        path.unlink(missing_ok=True)
    found = FeatureCache(folder).get(["shared"], lambda: torch.full((500, 64), 7.0), (500, 64))
    assert torch.equal(found, torch.full((500, 64), 7.0))
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


class Counting:
    """Computes features and counts how often."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self) -> Tensor:
        self.num_calls += 1
        return torch.full((2, 3), float(self.num_calls))


def test_features_are_computed_once_for_a_key(tmp_path: Path) -> None:
    cache, compute = FeatureCache(tmp_path / "cache"), Counting()
    first = cache.get(["image", b"x"], compute)
    again = FeatureCache(tmp_path / "cache").get(["image", b"x"], compute)
    assert compute.num_calls == 1
    assert torch.equal(first, again)
    assert torch.equal(cache.get(["imagex", b""], compute), torch.full((2, 3), 2.0))


def test_features_that_fail_leave_nothing_behind(tmp_path: Path) -> None:
    def fail() -> Tensor:
        raise RuntimeError("no features")

    with pytest.raises(RuntimeError, match="no features"):
        FeatureCache(tmp_path / "cache").get(["a"], fail)
    assert not list(tmp_path.rglob("*.npy"))


def saved(path: Path, array: object) -> None:
    with path.open("wb") as file:
        np.save(file, array)  # type: ignore[arg-type]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1  # in the last number: the hash behind it has 32 bytes
    path.write_bytes(raw)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "cut in the numbers": lambda path: path.write_bytes(path.read_bytes()[:140]),
    "cut in the hash": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "garbage": lambda path: path.write_bytes(b"<html>404</html>" * 40),
    "zeros": lambda path: path.write_bytes(bytes(400)),
    "one bit": flip,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "objects": lambda path: saved(path, np.array([[None, "a"], [1, 2]], dtype=object)),
    "an archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(300)),
    "other shape": lambda path: saved(path, np.zeros((3, 3), np.float32)),
    "other width": lambda path: saved(path, np.zeros((2, 4), np.float32)),
    "one axis": lambda path: saved(path, np.zeros(6, np.float32)),
    "other type": lambda path: saved(path, np.zeros(SHAPE, np.float64)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_again_replaced_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache, compute = FeatureCache(tmp_path), Counting()
    cache.get(KEY, compute, SHAPE)
    (path,) = tmp_path.glob("*.npy")
    DAMAGES[damage](path)
    assert torch.equal(cache.get(KEY, compute, SHAPE), torch.full(SHAPE, 2.0))
    assert f"{path} cannot be used (" in caplog.text
    caplog.clear()
    assert torch.equal(cache.get(KEY, compute, SHAPE), torch.full(SHAPE, 2.0))
    assert compute.num_calls == 2
    assert caplog.text == ""


def test_features_that_an_older_version_kept_without_a_hash_are_used(tmp_path: Path) -> None:
    cache, compute = FeatureCache(tmp_path), Counting()
    cache.get(KEY, compute, SHAPE)
    (path,) = tmp_path.glob("*.npy")
    saved(path, np.full(SHAPE, 5.0, np.float32))
    assert torch.equal(cache.get(KEY, compute, SHAPE), torch.full(SHAPE, 5.0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    assert torch.equal(FeatureCache(tmp_path / "cache").get(KEY, Counting(), SHAPE), torch.full(SHAPE, 1.0))
    assert "these features are not kept" in caplog.text


def test_a_cache_dir_that_is_a_file_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert torch.equal(FeatureCache(tmp_path / "cache").get(KEY, Counting(), SHAPE), torch.full(SHAPE, 1.0))
    assert "cannot be written" in caplog.text
    assert "train.cache_dir" in caplog.text


def test_a_full_disk_is_logged_and_leaves_nothing_half_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: object, array: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fill)
    assert torch.equal(FeatureCache(tmp_path).get(KEY, Counting(), SHAPE), torch.full(SHAPE, 1.0))
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_keep_the_same_features_do_not_meet_halfway(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITE, str(tmp_path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 1


def mapped(folder: Path, values: Tensor) -> MappedRows:
    shape = tuple(values.shape)
    return FeatureCache(folder).mapped(KEY, lambda: [values], shape, what="the tokens", instead="pooling = 'mean'")


def test_worker_processes_map_a_file_and_are_sent_no_copy_of_it(tmp_path: Path) -> None:
    reductions.init_reductions()  # a tensor would go into shared memory, with all that is mapped
    values = torch.arange(6.0).reshape(SHAPE)
    kept = mapped(tmp_path, values)
    sent = ForkingPickler.dumps(kept)
    assert not kept._values.is_shared()
    copy = pickle.loads(sent)
    assert torch.equal(copy[torch.tensor([1, 0])], values[[1, 0]].half())


def test_values_beyond_float16_are_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the tokens are kept in float16, .* is -1e\+06\. Set pooling = 'mean'"):
        mapped(tmp_path, torch.tensor([[1.0, 2.0, -1e6], [1.0, 2.0, 3.0]]))
    assert not list(tmp_path.iterdir())
    assert mapped(tmp_path, torch.full(SHAPE, float("nan")))[0].isnan().all()

"""What holds for every test: no model hub, one thread a process, the longest files first, little to collect."""

from __future__ import annotations

import atexit
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# The files that take longest, longest first. xdist gives each process a file at a time: one of these at the end would
# let the other processes wait for it.
LONGEST = (
    "tests/export/test_architectures.py",
    "tests/export/sources/test_transformers.py",
    "tests/export/sources/test_open_clip.py",
    "tests/mmalign/training/test_torchrun.py",
    "tests/export/test_aotinductor.py",
    "tests/export/rewrite/test_pooled_row.py",
    "tests/export/sources/test_training_from_imports.py",
    "tests/export/sources/test_one_space.py",
    "tests/mmalign/training/test_train_run.py",
    "tests/benchmarks/test_against_peers.py",
    "tests/export/test_to_bundle.py",
    "tests/runtime/cli/test_embed_survives.py",
)

# No test may need a hub: its client is told so before anything imports it, in this process and its children.
os.environ["HF_HUB_OFFLINE"] = "1"
# On tiny tensors threads only wait for each other, and as many processes as processors run tests already.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def freed_memory_is_given_back() -> None:
    """`mmalign train` keeps memory for the life of its process: here that of all tests, and some measure memory."""
    if find_spec("torch") is not None:
        import mmalign.cli

        mmalign.cli.keep_freed_memory = lambda: None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs Linux and the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def pytest_collection() -> None:
    """Look for no garbage while the modules of all tests are imported: a quarter of the time of that."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first where several processes share the tests; `--no-loadscope-reorder` keeps it so."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = {name: at for at, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))


def pytest_collection_finish() -> None:
    """Keep the million objects of torch and transformers out of every later collection of garbage.

    The five that pytest does at its end are later too. The interpreter takes apart at its own end what was kept; triton
    would list all of it as leaked.
    """
    gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)

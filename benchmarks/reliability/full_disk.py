"""A disk that fills up: python -m benchmarks.reliability full_disk (as root: it mounts small file systems in memory)

Writes of vectors, a checkpoint, a bundle and the memory of hashes, with ever less room: from nothing to nearly enough.
Expected: a named error, what was at the path before untouched, nothing half written left. A load needs no room at all.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.harness.places import FIXTURE
from benchmarks.reliability.record import Row, record
from mmalign.checkpoints.checkpoint import Progress, save_last
from mmalign.errors import CheckpointError
from mmalign.model import DualEncoder
from mmalign.run.model import dual_model
from mmalign.training.metrics import MetricsLog, MetricsRow, read_metrics
from mmalign_export import export_model
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import MmalignError
from mmalign_runtime.saved import SavedVectors, save_vectors
from tests.make_tiny_bundle import tiny_run

# The room left of what a whole write needs.
_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_DISK_MB = 64
_PAGE = 4096
_NUM_VECTORS = 4000


class Write(msgspec.Struct, frozen=True):
    """One write with too little room; an empty `fault` is a write that failed as it should."""

    what: str
    room_bytes: int
    error: str
    fault: str


@contextmanager
def small_disk() -> Iterator[Path]:
    """Give a folder that is a file system of a few MB. Raises CalledProcessError where that is not allowed."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def fill(disk: Path, room_bytes: int) -> None:
    """Fill a disk up to so many bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize - room_bytes
    with filler.open("wb") as file:
        for _ in range(max(0, size // _PAGE)):
            file.write(bytes(_PAGE))


def try_writes(what: str, write: Callable[[Path], object], name: str) -> Iterator[Write]:
    """Write once with enough room, then again and again over it with too little."""
    with small_disk() as disk:
        target = disk / "place" / name
        target.parent.mkdir()
        write(target)
        before, needed = _contents(target.parent), _size(target)
        for share in _SHARES:
            room_bytes = int(needed * share)
            fill(disk, room_bytes)
            yield _tried(what, partial(write, target), target.parent, before, room_bytes)


def _tried(what: str, write: Callable[[], object], folder: Path, before: dict[str, bytes], room_bytes: int) -> Write:
    try:
        write()
        error, fault = "", "no error"
    except MmalignError as raised:
        error, fault = f"{type(raised).__name__}: {raised}", ""
    except Exception as raised:  # noqa: BLE001 - which error comes is what is measured
        error, fault = f"{type(raised).__name__}: {raised}", "the error has no name of ours"
    after = _contents(folder)
    if after != before:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        fault = f"{fault}; changed or left over: {', '.join(changed)}".removeprefix("; ")
    return Write(what, room_bytes, error.replace(str(folder), "."), fault)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _size(path: Path) -> int:
    return sum(found.stat().st_size for found in ([path] if path.is_file() else path.rglob("*")) if found.is_file())


def _vectors() -> SavedVectors:
    vectors = np.random.default_rng(0).standard_normal((_NUM_VECTORS, 64)).astype(np.float32)
    return SavedVectors(tuple(map(str, range(_NUM_VECTORS))), vectors, "space", "fp32-variant")


def _loads(disk: Path) -> Write:
    """Load and embed with the cache on a full disk."""
    fill(disk, 0)
    os.environ["XDG_CACHE_HOME"] = str(disk / "cache")
    try:
        vectors = Embedder.load(FIXTURE, provider="cpu").encode_text(["a dog"])
        fault = "" if vectors.shape[0] == 1 else "no vector"
    except Exception as raised:  # noqa: BLE001 - which error comes is what is measured
        fault = repr(raised)
    return Write("full disk: a bundle loaded, with its cache there", 0, "", fault)


def _logs(disk: Path) -> Write:
    """Log steps until there is no room; the rows before stay readable, and a run goes on from a checkpoint."""
    row = MetricsRow(1, 1, loss=1.0, logit_scale=10.0, learning_rate=1e-3)
    error, fault = "", ""
    try:
        with MetricsLog(disk, keep_steps=0) as log:
            fill(disk, _PAGE)
            for _ in range(_PAGE):
                log.write(row)
    except CheckpointError as raised:
        error = f"{type(raised).__name__}: {raised}".replace(str(disk), ".")
    if not error or not read_metrics(disk / "metrics.csv"):
        fault = "the rows before are not there" if error else "no error"
    return Write("full disk: steps logged while training", _PAGE, error, fault)


def _rows(writes: Sequence[Write]) -> list[Row]:
    rows = []
    for what in dict.fromkeys(write.what for write in writes):
        of = [write for write in writes if write.what == what]
        faults = Counter(write.fault for write in of if write.fault)
        named = sorted({write.error.split(":")[0] for write in of if write.error})
        measured = "; ".join(f"{fault} ({count})" for fault, count in faults.items())
        measured = measured or (f"{', '.join(named)}; what was there is intact" if named else "works")
        rows.append(Row(what, len(of), len(of) - faults.total(), measured))
    return rows


def run() -> None:
    """Fill, write, and record."""
    if os.geteuid() != 0:
        raise SystemExit("skipped: mounting a small file system needs root")
    torch.set_num_threads(1)
    saved = _vectors()
    writes: list[Write] = []
    with tempfile.TemporaryDirectory() as name:
        tiny = tiny_run(Path(name) / "run")
        optimizer = torch.optim.SGD(tiny.model.parameters(), lr=0.0)
        for suffix in ("npz", "parquet"):
            writes += try_writes(
                "full disk: vectors saved", lambda path: save_vectors(path, saved), f"vectors.{suffix}"
            )
        save = partial(_save, tiny.model, optimizer)
        writes += try_writes("full disk: a checkpoint written", save, "last.safetensors")
        export = partial(export_model, dual_model(tiny))
        writes += try_writes(
            "full disk: a bundle exported over another", lambda path: export(path, force=True), "bundle"
        )
        with small_disk() as disk:
            writes.append(_loads(disk))
        with small_disk() as disk:
            writes.append(_logs(disk))
    record("full_disk", _rows(writes), {"writes": writes})


def _save(model: DualEncoder, optimizer: torch.optim.Optimizer, path: Path) -> None:
    save_last(path, model, optimizer, Progress(step=1))

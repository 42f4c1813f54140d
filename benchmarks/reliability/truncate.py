"""Every kind of file cut at every 1,000th byte: python -m benchmarks.reliability truncate

A file of a bundle, a checkpoint and saved vectors must be refused by a named error. An image must be refused, or give
the pixels of the whole file: some formats are complete before their last byte. Pixels that differ would be the bug.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness.places import FIXTURE
from benchmarks.reliability.record import Row, counted, record
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import BundleError, InputError, ItemError, MmalignError
from mmalign_runtime.image import decode_image
from mmalign_runtime.saved import SavedVectors, load_vectors, save_vectors
from mmalign_runtime.spec import ImageSpec

STEP = 1000
_NUM_VECTORS, _EMBED_DIM = 400, 64

Check = Callable[[], str]


class Cut(msgspec.Struct, frozen=True):
    """One file cut at every `step`th byte: how often which outcome came."""

    kind: str
    file: str
    num_bytes: int
    outcomes: dict[str, int]


def cut_images(folder: Path, step: int) -> Iterator[Cut]:
    """Cut the golden images."""
    for path in sorted((folder / "golden").iterdir()):
        if path.suffix != ".json":
            data = path.read_bytes()
            pixels = decode_image(data, ImageSpec())
            outcomes = Counter(_decoded(data[:length], pixels) for length in range(0, len(data), step))
            yield Cut("image", path.name, len(data), dict(outcomes))


def cut_file(kind: str, path: Path, step: int, check: Check) -> Cut:
    """Cut one file in place, from the longest cut to the shortest, and put it back."""
    whole = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for length in range(0, len(whole), step)[::-1]:
        os.truncate(path, length)
        outcomes[check()] += 1
    path.write_bytes(whole)
    return Cut(kind, path.name, len(whole), dict(outcomes))


def cut_bundle(bundle: Path, step: int) -> Iterator[Cut]:
    """Cut every file of a bundle."""
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        check = partial(_raised, partial(open_bundle, bundle), BundleError, path.relative_to(bundle).as_posix())
        yield cut_file("file of a bundle", path, step, check)


def cut_vectors(folder: Path, step: int) -> Iterator[Cut]:
    """Cut saved vectors."""
    vectors = np.random.default_rng(0).standard_normal((_NUM_VECTORS, _EMBED_DIM)).astype(np.float32)
    saved = SavedVectors(tuple(f"{i}.jpg" for i in range(_NUM_VECTORS)), vectors, "space", "fp32-variant")
    for name in ("vectors.npz", "vectors.parquet"):
        save_vectors(folder / name, saved)
        check = partial(_raised, partial(load_vectors, folder / name), InputError, name)
        yield cut_file("saved vectors", folder / name, step, check)


def cut_checkpoint(folder: Path, step: int) -> Cut:
    """Cut a checkpoint of tiny towers."""
    from benchmarks.reliability.kill_checkpoint import optimizer_of
    from mmalign.checkpoints.checkpoint import Progress, restore, save_last
    from mmalign.errors import CheckpointError
    from tests.make_tiny_bundle import tiny_run

    model = tiny_run(folder / "tiny").model
    optimizer, path = optimizer_of(model), folder / "last.safetensors"
    save_last(path, model, optimizer, Progress(step=1))
    restore(path, model, optimizer)  # whole, it is not refused
    check = partial(_raised, partial(restore, path, model, optimizer), CheckpointError, path.name)
    return cut_file("checkpoint", path, step, check)


def _decoded(data: bytes, expected: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    try:
        pixels = decode_image(data, ImageSpec())
    except ItemError:
        return "refused"
    return "whole" if np.array_equal(pixels, expected) else "OTHER PIXELS"


def _raised(read: Callable[[], object], expected: type[MmalignError], name: str) -> str:
    try:
        read()
    except expected as error:
        return "refused" if name in str(error) else "refused, NOT NAMED"
    return "NOT SEEN"


def _rows(cuts: Sequence[Cut]) -> list[Row]:
    rows = []
    for kind in dict.fromkeys(cut.kind for cut in cuts):
        totals: Counter[str] = Counter()
        for cut in cuts:
            totals.update(cut.outcomes if cut.kind == kind else {})
        good = totals["refused"] + totals["whole"]
        complete = [cut.file for cut in cuts if cut.kind == kind and "whole" in cut.outcomes]
        measured = counted(totals)
        measured += f" (complete before their last byte: {', '.join(complete)})" if complete else ""
        num_files = sum(cut.kind == kind for cut in cuts)
        rows.append(Row(f"{kind}, cut at every 1,000th byte ({num_files} files)", totals.total(), good, measured))
    return rows


def run(step: int = STEP) -> None:
    """Cut, read, and record."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        shutil.copytree(FIXTURE, folder / "bundle")
        cuts = [
            *cut_images(folder / "bundle", step),
            *cut_bundle(folder / "bundle", step),
            *cut_vectors(folder, step),
            cut_checkpoint(folder, step),
        ]
    record("truncate", _rows(cuts), {"step": step, "cuts": cuts}, is_kept=step == STEP)

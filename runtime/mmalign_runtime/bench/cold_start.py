"""How long a fresh process takes to its first vector, the interpreter's own start included, and what it holds then."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import EngineError
from mmalign_runtime.spec import Modality

# The clock is read before anything is imported but itself.
_PROCESS = "import time; started = time.monotonic(); from mmalign_runtime.bench.first_vector import main; main(started)"


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """From the start of a process that loads one tower to its first vector: medians over `num_starts`, milliseconds.

    In order: the interpreter starts, packages are imported, the bundle is opened, the tower is loaded, one item is
    embedded. Files were read before, so the disk is warm. `resident_bytes` is what the process holds then.
    """

    kind: Modality
    num_starts: int
    total_ms: float
    process_ms: float
    import_ms: float
    open_ms: float
    load_ms: float
    first_run_ms: float
    resident_bytes: int | None


class _Moments(msgspec.Struct, frozen=True):
    started: float
    imported: float
    opened: float
    loaded: float
    embedded: float
    resident_bytes: int | None


def time_cold_start(embedder: Embedder, kind: Modality, num_starts: int) -> ColdStart:
    """Start processes that load as the embedder did, one after the other. Raises EngineError when one fails.

    The image is the golden one with the middle number of pixels, the text the longest golden one.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = msgspec.json.encode(
            {
                "bundle": str(embedder.bundle.path.absolute()),
                "kind": kind,
                "item": _image_path(embedder, Path(folder)) if kind == "image" else _text(embedder),
                "options": embedder.options.fields(),
            }
        ).decode()
        starts = [_start(asked) for _ in range(num_starts)]
    return _medians(kind, starts)


def _image_path(embedder: Embedder, folder: Path) -> str:
    cases = sorted(load_golden(embedder.bundle).images, key=lambda case: case.height * case.width)
    source: FileSource = embedder.bundle.source(cases[len(cases) // 2].file)
    if isinstance(source, Path):
        return str(source.absolute())
    path = folder / "image"  # an archive gives bytes
    path.write_bytes(source)
    return str(path)


def _text(embedder: Embedder) -> str:
    return max((case.text for case in load_golden(embedder.bundle).texts), key=len)


def _start(asked: str) -> tuple[float, _Moments]:
    begun = time.monotonic()
    process = subprocess.run([sys.executable, "-c", _PROCESS, asked], capture_output=True, text=True, check=False)
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or ["no word of why"]
        raise EngineError(f"a fresh process could not embed its first item (exit code {process.returncode}): {last[0]}")
    return begun, msgspec.json.decode(process.stdout, type=_Moments)


def _medians(kind: Modality, starts: list[tuple[float, _Moments]]) -> ColdStart:
    def median_ms(seconds: list[float]) -> float:
        return float(np.median(seconds)) * 1000

    held = [moments.resident_bytes for _, moments in starts if moments.resident_bytes is not None]
    return ColdStart(
        kind=kind,
        num_starts=len(starts),
        total_ms=median_ms([moments.embedded - begun for begun, moments in starts]),
        process_ms=median_ms([moments.started - begun for begun, moments in starts]),
        import_ms=median_ms([moments.imported - moments.started for _, moments in starts]),
        open_ms=median_ms([moments.opened - moments.imported for _, moments in starts]),
        load_ms=median_ms([moments.loaded - moments.opened for _, moments in starts]),
        first_run_ms=median_ms([moments.embedded - moments.loaded for _, moments in starts]),
        resident_bytes=int(np.median(held)) if held else None,
    )

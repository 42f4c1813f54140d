"""How long a fresh process takes to its first vector, the interpreter's own start included, and what it holds then."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

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


class _Start(msgspec.Struct, frozen=True):
    """What a process says: moments of `time.monotonic`, and what it holds at the last of them."""

    moments: list[float]
    resident_bytes: int | None


def time_cold_start(embedder: Embedder, kind: Modality, num_starts: int) -> ColdStart:
    """Start processes that load as the embedder did, one after the other. Raises EngineError when one fails.

    The image is the golden one with the middle number of pixels, the text the longest golden one.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "bundle": str(embedder.bundle.path.absolute()),
            "kind": kind,
            "item": _image_path(embedder, Path(folder)) if kind == "image" else _text(embedder),
            "options": embedder.options.fields(),
        }
        starts = [_start(msgspec.json.encode(asked).decode()) for _ in range(num_starts)]
    moments = 1000 * np.array([start.moments for start in starts])
    process_ms, import_ms, open_ms, load_ms, first_run_ms = np.median(np.diff(moments), axis=0).tolist()
    held = [start.resident_bytes for start in starts if start.resident_bytes is not None]
    return ColdStart(
        kind=kind,
        num_starts=num_starts,
        total_ms=float(np.median(moments[:, -1] - moments[:, 0])),
        process_ms=process_ms,
        import_ms=import_ms,
        open_ms=open_ms,
        load_ms=load_ms,
        first_run_ms=first_run_ms,
        resident_bytes=int(np.median(held)) if held else None,
    )


def _image_path(embedder: Embedder, folder: Path) -> str:
    cases = sorted(load_golden(embedder.bundle).images, key=lambda case: case.height * case.width)
    source = embedder.bundle.source(cases[len(cases) // 2].file)
    if isinstance(source, Path):
        return str(source.absolute())
    path = folder / "image"  # an archive gives bytes
    path.write_bytes(source)
    return str(path)


def _text(embedder: Embedder) -> str:
    return max((case.text for case in load_golden(embedder.bundle).texts), key=len)


def _start(asked: str) -> _Start:
    begun = time.monotonic()
    process = subprocess.run([sys.executable, "-c", _PROCESS, asked], capture_output=True, text=True, check=False)
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise EngineError(f"a fresh process could not embed its first item (exit code {process.returncode}): {last[0]}")
    said = msgspec.json.decode(process.stdout, type=_Start)
    return _Start([begun, *said.moments], said.resident_bytes)

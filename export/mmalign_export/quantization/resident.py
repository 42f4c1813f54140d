"""What a tower keeps in memory, measured in a process of its own: loaded, and run once.

python -m mmalign_export.quantization.resident MODEL.onnx FEEDS.npz ENGINE THREADS
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mmalign_export.errors import QuantizationError
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Feeds, SessionOptions

_STATUS = Path("/proc/self/status")


def resident_mb(contents: bytes, feeds: Feeds, options: SessionOptions) -> float | None:
    """Return by how many MB a process grows that loads the model and runs it once on the CPU; None where Linux does not
    say, and on a device, whose own memory it is."""
    if not _STATUS.exists() or options.provider != "cpu":
        return None
    with tempfile.TemporaryDirectory() as folder:
        model, inputs = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        model.write_bytes(contents)
        np.savez(inputs, **feeds)  # type: ignore[arg-type]  # numpy's stub takes keywords for its own options
        threads = str(options.pool.num_threads)
        command = [sys.executable, "-m", __name__, str(model), str(inputs), options.engine, threads]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise QuantizationError(f"the candidate failed in a process of its own: {done.stderr.strip()[-500:]}")
    return float(done.stdout)


def _main(model: str, inputs: str, engine: str, threads: str) -> None:
    from mmalign_export.quantization.trial import open_model

    with np.load(inputs) as stored:
        feeds = dict(stored)
    options = SessionOptions("cpu", thread_pool(int(threads)), engine=engine)
    contents = Path(model).read_bytes()
    before = _resident_kb() - len(contents) // 1024
    session = open_model(contents, tuple(feeds), options)
    session.run(feeds)
    del contents
    sys.stdout.write(f"{(_resident_kb() - before) / 1024}\n")


def _resident_kb() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    _main(*sys.argv[1:])

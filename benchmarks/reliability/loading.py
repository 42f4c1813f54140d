"""Resident memory of one tower, the other, and both, each in a process of its own:
python -m benchmarks.reliability loading
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.places import bundle_at_hand
from benchmarks.harness.processes import printed_numbers
from benchmarks.reliability.record import Row, record
from mmalign_runtime.bundle import open_bundle

# Loads the towers named, says hello with each, and prints its resident memory in MB.
_PROCESS = """
import sys
import numpy as np
from benchmarks.harness.processes import resident_mb
from mmalign_runtime import Embedder
embedder = Embedder.load(sys.argv[1], provider="cpu", towers=tuple(sys.argv[2:]) or ("text",), lazy=not sys.argv[2:])
if "image" in sys.argv[2:]:
    embedder.encode_image([np.zeros((64, 64, 3), np.uint8)])
if "text" in sys.argv[2:]:
    embedder.encode_text(["hello"])
print(resident_mb())
"""
_CHOICES: dict[str, tuple[str, ...]] = {"none": (), "image": ("image",), "text": ("text",), "both": ("image", "text")}


def run(bundle: Path | None = None) -> None:
    """Measure and record: a tower that was not asked for must cost nothing."""
    path = (bundle or bundle_at_hand()).resolve()
    opened = open_bundle(path)
    files = {"image": opened.spec.artifact("image").file, "text": opened.spec.artifact("text").file}
    file_mb = {tower: opened.contents.size_bytes(name) / 2**20 for tower, name in files.items()}
    found = {name: printed_numbers(_PROCESS, str(path), *towers)[0] for name, towers in _CHOICES.items()}
    # One tower alone must be cheaper than both by at least most of the other's weights.
    saved = {"image": found["both"] - found["text"], "text": found["both"] - found["image"]}
    good = sum(saved[tower] > 0.8 * file_mb[tower] for tower in files)
    shown = ", ".join(f"{name} {mb:.0f}" for name, mb in found.items())
    weights = ", ".join(f"{tower} {mb:.0f}" for tower, mb in file_mb.items())
    measured = f"resident MB: {shown}; files: {weights}"
    sizes = {"resident_mb": found, "file_mb": file_mb}
    details = {name: {key: round(mb, 1) for key, mb in each.items()} for name, each in sizes.items()}
    record("loading", [Row("one tower leaves the other's memory alone", len(files), good, measured)], details)

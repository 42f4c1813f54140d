"""Resident memory of one tower, the other, and both, each in a process of its own:
python benchmarks/reliability/loading.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec

from benchmarks.harness.places import DEMO_BUNDLE, FIXTURE
from benchmarks.reliability.record import Row, record
from mmalign_runtime.bundle import open_bundle

# Loads the towers named, says hello with each, and prints its resident memory in kB.
_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from mmalign_runtime import Embedder
embedder = Embedder.load(sys.argv[1], provider="cpu", towers=tuple(sys.argv[2:]) or ("text",), lazy=not sys.argv[2:])
if "image" in sys.argv[2:]:
    embedder.encode_image([np.zeros((64, 64, 3), np.uint8)])
if "text" in sys.argv[2:]:
    embedder.encode_text(["hello"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
"""
_CHOICES: dict[str, tuple[str, ...]] = {"none": (), "image": ("image",), "text": ("text",), "both": ("image", "text")}


class Details(msgspec.Struct, frozen=True):
    """Resident MB by what was loaded, and the MB of each tower's file."""

    resident_mb: dict[str, float]
    file_mb: dict[str, float]


def resident_mb(bundle: Path, towers: tuple[str, ...]) -> float:
    """Return the resident memory of a process that loaded these towers and used each once."""
    words = [sys.executable, "-c", _PROCESS, str(bundle), *towers]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) / 1024


def main() -> None:
    """Measure and record: a tower that was not asked for must cost nothing."""
    parser = argparse.ArgumentParser(description="Resident memory by the towers loaded.")
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE if DEMO_BUNDLE.is_dir() else FIXTURE)
    path = parser.parse_args().bundle
    bundle = open_bundle(path)
    files = {"image": bundle.spec.artifact("image").file, "text": bundle.spec.artifact("text").file}
    file_mb = {tower: bundle.contents.size_bytes(name) / 2**20 for tower, name in files.items()}
    found = {name: resident_mb(path, towers) for name, towers in _CHOICES.items()}
    # One tower alone must be cheaper than both by at least most of the other's weights.
    saved = {"image": found["both"] - found["text"], "text": found["both"] - found["image"]}
    good = sum(saved[tower] > 0.8 * file_mb[tower] for tower in files)
    shown = ", ".join(f"{name} {mb:.0f}" for name, mb in found.items())
    weights = ", ".join(f"{tower} {mb:.0f}" for tower, mb in file_mb.items())
    measured = f"resident MB: {shown}; files: {weights}"
    details = Details({name: round(mb, 1) for name, mb in found.items()}, {k: round(v, 1) for k, v in file_mb.items()})
    record("loading", [Row("one tower leaves the other's memory alone", len(files), good, measured)], details)


if __name__ == "__main__":
    main()

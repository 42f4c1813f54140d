"""Seconds and peak memory of `mmalign import` with its proof: python -m benchmarks.imports.import_cost WORK

The import runs in a process of its own, which loads torch and open_clip anew. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.imports.random_clip import save_random

_IMPORT = "from mmalign_runtime.cli import main; import sys; main(sys.argv[1:])"


def main() -> None:
    """Import once, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    options = parser.parse_args()
    folder, bundle = save_random(options.model, options.work / options.model), options.work / "imported"
    shutil.rmtree(bundle, ignore_errors=True)
    start = perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORT, "import", str(folder), "--out", str(bundle)], check=True)
    seconds = perf_counter() - start
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # Linux counts kibibytes
    print(f"{options.model}: {seconds:.1f} s, {peak_bytes / 1e9:.2f} GB at most")
    print(json.dumps({"model": options.model, "seconds": seconds, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main()

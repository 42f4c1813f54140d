"""CLIP ViT-B/32 at its real size as a pair of ONNX files, imported, proven and verified.

transformers' model with random weights spread out, exported as the publishers of such pairs export (torch's older
exporter, opset 14): one folder with a dynamic batch, as transformers.js has it, or a graph for one item, as immich has.

    python -m benchmarks.imports.onnx_pair transformers.js [--folder FOLDER]

The last line is JSON: seconds of the import, peak memory, each stage of the proof, and what verify found.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

from benchmarks.imports.real_size import import_and_verify, save_real_size
from tests.export.sources.onnx_pairs import save_immich, save_transformers_js

_SAVED = {"transformers.js": save_transformers_js, "immich": save_immich}


def measure(layout: str, folder: Path) -> dict[str, object]:
    """Export, import and verify; return what the import took and what was proven. Memory includes the export's."""
    source = save_real_size("clip", folder / "source")
    pair = _SAVED[layout](source, folder / "pair")
    exported_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = import_and_verify(pair, folder / "bundle")
    return {"layout": layout, "peak_of_the_export_gb": round(exported_gb, 2)} | found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=sorted(_SAVED))
    parser.add_argument("--folder", type=Path, help="where model and bundle are kept; default: nowhere")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(arguments.layout, arguments.folder or Path(temporary))))

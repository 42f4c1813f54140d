"""What the format can say and this version does not compute: refused by name before anything is loaded."""

from __future__ import annotations

from mmalign_runtime.errors import BundleFeatureError
from mmalign_runtime.spec import ONNX, Artifact, ImageTower, Tower


def check_supported(tower: Tower, artifact: Artifact) -> None:
    """Raise BundleFeatureError where a tower or its artifact needs what is not here."""
    name = artifact.tower
    if artifact.external and artifact.engine != ONNX:
        raise BundleFeatureError(
            f"the {name} tower's {artifact.engine} package keeps weights beside it, in {', '.join(artifact.external)}, "
            "and this version loads such packages from one file. Ask for engine 'onnxruntime', or update: "
            "`pip install -U mmalign-runtime`."
        )
    if isinstance(tower, ImageTower) and tower.spec.resize == "naflex":
        raise BundleFeatureError(
            f"the {name} tower takes patches at a picture's own ratio (resize 'naflex'), and this version resizes to "
            "one size. Import a model of a fixed size, or update: `pip install -U mmalign-runtime`."
        )

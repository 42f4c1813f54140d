"""What the format can say and this version does not compute: refused by name before anything is loaded."""

from __future__ import annotations

from mmalign_runtime.errors import BundleFeatureError
from mmalign_runtime.spec import ONNX, Artifact


def check_supported(artifact: Artifact) -> None:
    """Raise BundleFeatureError where a tower's artifact needs what is not here."""
    if artifact.external and artifact.engine != ONNX:
        raise BundleFeatureError(
            f"the {artifact.tower} tower's {artifact.engine} package keeps weights beside it, in "
            f"{', '.join(artifact.external)}, and this version loads such packages from one file. Ask for engine "
            "'onnxruntime', or update: `pip install -U mmalign-runtime`."
        )

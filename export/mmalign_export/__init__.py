"""Export an mmalign run to a bundle whose vectors are proven equal to PyTorch's.

Names are loaded when first used: the command line lists its verbs without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign_export.errors import ExportError, ParityError
    from mmalign_export.export import export_model, export_run
    from mmalign_export.parity import Artifact, check_parity
    from mmalign_export.to_compiled import compile_tower, load_aoti, package_aoti
    from mmalign_export.to_onnx import export_onnx
    from mmalign_export.towers import image_tower, text_tower

_HOMES = {
    "Artifact": "parity",
    "ExportError": "errors",
    "ParityError": "errors",
    "check_parity": "parity",
    "compile_tower": "to_compiled",
    "export_model": "export",
    "export_onnx": "to_onnx",
    "export_run": "export",
    "image_tower": "towers",
    "load_aoti": "to_compiled",
    "package_aoti": "to_compiled",
    "text_tower": "towers",
}

__all__ = [
    "Artifact",
    "ExportError",
    "ParityError",
    "check_parity",
    "compile_tower",
    "export_model",
    "export_onnx",
    "export_run",
    "image_tower",
    "load_aoti",
    "package_aoti",
    "text_tower",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

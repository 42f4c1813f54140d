"""Export models to bundles whose vectors are proven equal to PyTorch's, and quantize them within a budget of recall.

Names are loaded when first used: the command line lists its verbs without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign_export.errors import (
        ExportError,
        FormatLimitError,
        ParityError,
        ProofError,
        QuantizationError,
        SourceError,
    )
    from mmalign_export.importing import import_model, import_modules
    from mmalign_export.quantization.budget import Budget, parse_budget
    from mmalign_export.quantization.report import QuantizationReport
    from mmalign_export.quantization.run import quantize
    from mmalign_export.sources import SourceOptions, read_source
    from mmalign_export.to_bundle import export, export_model

_HOMES = {
    "Budget": "quantization.budget",
    "ExportError": "errors",
    "FormatLimitError": "errors",
    "ParityError": "errors",
    "ProofError": "errors",
    "QuantizationError": "errors",
    "QuantizationReport": "quantization.report",
    "SourceError": "errors",
    "SourceOptions": "sources",
    "export": "to_bundle",
    "export_model": "to_bundle",
    "import_model": "importing",
    "import_modules": "importing",
    "parse_budget": "quantization.budget",
    "quantize": "quantization.run",
    "read_source": "sources",
}

__all__ = [
    "Budget",
    "ExportError",
    "FormatLimitError",
    "ParityError",
    "ProofError",
    "QuantizationError",
    "QuantizationReport",
    "SourceError",
    "SourceOptions",
    "export",
    "export_model",
    "import_model",
    "import_modules",
    "parse_budget",
    "quantize",
    "read_source",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

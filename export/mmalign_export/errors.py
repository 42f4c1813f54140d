"""Every error that exporting raises on purpose.

MmalignError (mmalign_runtime)
└── ExportError       a bundle could not be made
    ├── FormatLimitError    the bundle format has no place for a part of the model
    ├── ParityError   an artifact's vectors are not those of eager PyTorch
    └── QuantizationError   a bundle cannot be quantized as asked
"""

from __future__ import annotations

from mmalign_runtime.errors import MmalignError


class ExportError(MmalignError):
    """A bundle could not be made; nothing half-written is left."""


class FormatLimitError(ExportError):
    """The bundle format has no place for a part of the model."""


class ParityError(ExportError):
    """An artifact's vectors differ from eager PyTorch's by more than the bound."""


class QuantizationError(ExportError):
    """A bundle cannot be quantized: the model, the data or the budget do not allow it."""

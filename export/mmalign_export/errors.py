"""Every error that exporting raises on purpose.

MmalignError (mmalign_runtime)
└── ExportError       a bundle could not be made
    ├── FormatLimitError    the bundle format has no place for a part of the model
    ├── SourceError   what is to be imported is damaged, incomplete, or nothing that can be proven
    ├── ProofError    an imported model is not what its own library computes
    ├── ParityError   an artifact's vectors are not those of eager PyTorch
    └── QuantizationError   a bundle cannot be quantized as asked
"""

from __future__ import annotations

from mmalign_runtime.errors import MmalignError


class ExportError(MmalignError):
    """A bundle could not be made; nothing half-written is left."""


class FormatLimitError(ExportError):
    """The bundle format has no place for a part of the model."""


class SourceError(ExportError):
    """What is to be imported is damaged, incomplete, asks for code that is not run, or could not be proven."""


class ProofError(ExportError):
    """An imported model gives other token ids, pixels or vectors than the library that it comes from."""


class ParityError(ExportError):
    """An artifact's vectors differ from eager PyTorch's by more than the bound."""


class QuantizationError(ExportError):
    """A bundle cannot be quantized: the model, the data or the budget do not allow it."""

"""Every loss, by the `kind` that its config struct is tagged with.

A new loss is one file here, with its config struct, and one entry in this union.
"""

from __future__ import annotations

from typing import TypeAlias

from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.sigmoid import SigmoidConfig

AnyLossConfig: TypeAlias = InfoNCEConfig | SigmoidConfig

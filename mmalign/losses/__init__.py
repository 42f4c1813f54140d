"""Every loss and every term beside it, by the `kind` that its config struct is tagged with.

A new one is one file here, with its config struct, and one entry in these unions.
"""

from __future__ import annotations

from typing import TypeAlias

from mmalign.losses.distillation import Distillation
from mmalign.losses.hard_negatives import HardNegativesConfig
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.sigmoid import SigmoidConfig
from mmalign.losses.soft_targets import SoftTargetsConfig

AnyLossConfig: TypeAlias = InfoNCEConfig | SigmoidConfig | HardNegativesConfig | SoftTargetsConfig
AnyTerm: TypeAlias = Matryoshka | Distillation | IntraModal

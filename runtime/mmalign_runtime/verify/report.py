"""What a verification found: every golden case, every check, and the verdict."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmalign_runtime.info import RuntimeInfo
from mmalign_runtime.spec import Modality, Parity

Stage = Literal["decode", "preprocess", "tokenize", "tower", "regions", "scores"]
# A case of a tower, or of the second stage.
Kind = Literal["image", "text", "attention"]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One golden case: its cosine and largest difference to the reference, and the first stage to differ, if any."""

    name: str
    kind: Kind
    passed: bool
    cosine: float
    max_abs_difference: float
    stage: Stage | None = None
    detail: str = ""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One property of the runtime here: the largest difference seen, the bound it is held to, and what was compared."""

    name: str
    passed: bool
    max_abs_difference: float
    bound: float
    detail: str


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """How far another bundle's vectors of the same golden items are from this one's, and which item is farthest."""

    bundle: str
    space_id: str
    is_same_space: bool
    passed: bool
    min_cosine: float
    max_abs_difference: float
    farthest: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a verification: what ran, each tower's bounds, every case, every check, and how long it took."""

    runtime: RuntimeInfo
    bounds: dict[Modality, Parity]
    cases: tuple[CaseResult, ...]
    checks: tuple[CheckResult, ...]
    against: Against | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all is inside its bounds; a report without cases or checks proves nothing and has not passed."""
        proven = all(case.passed for case in self.cases) and all(check.passed for check in self.checks)
        is_equal = self.against is None or self.against.passed
        return bool(self.cases and self.checks) and proven and is_equal

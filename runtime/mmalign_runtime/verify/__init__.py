"""Proving a bundle on the machine at hand, with the provider, precision and threads that will serve.

golden_cases holds every golden case to the PyTorch reference, stage by stage; invariance asks whether a vector depends
on what else is going on; float32 asks whether the provider computes in float32; against compares two bundles.
"""

from __future__ import annotations

from mmalign_runtime.verify.report import Against, CaseResult, CheckResult, VerifyReport
from mmalign_runtime.verify.run import require_golden, verify_bundle, verify_embedder

__all__ = [
    "Against",
    "CaseResult",
    "CheckResult",
    "VerifyReport",
    "require_golden",
    "verify_bundle",
    "verify_embedder",
]

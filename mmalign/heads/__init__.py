"""Every projection head, by the `kind` that its config struct is tagged with.

A new head is one file here, with its config struct, and one entry in this union.
"""

from __future__ import annotations

from typing import TypeAlias

from mmalign.heads.identity import IdentityHead
from mmalign.heads.linear import LinearHead
from mmalign.heads.mlp import MLPHead
from mmalign.heads.residual import ResidualHead

AnyHead: TypeAlias = IdentityHead | LinearHead | MLPHead | ResidualHead

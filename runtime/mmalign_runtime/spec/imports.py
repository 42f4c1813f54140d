"""What a bundle records of the import that made it: the choices, and the proof against the library it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that decides vectors, what it was set to, and where that was read ("config.json", "--length fixed")."""

    what: str
    value: str
    origin: str


class ProofStage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparison with the library, of one tower, over `num_cases`.

    `largest` is what moved most, in the unit of the stage: texts with other ids, levels of 255, components of vectors;
    `bound` is what it may be. `lowest_cosine` is measured where vectors are compared.
    """

    stage: Literal["token ids", "pixels", "tower", "file to vector"]
    tower: Literal["image", "text"]
    num_cases: Count
    largest: float
    bound: float
    lowest_cosine: float | None = None


class ImportDifference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A golden case, or a text, that the bundle and the library treat by different conventions.

    `why` names the convention, `cosine` is between the two vectors. The golden vector of such a case is that of eager
    PyTorch on the bundle's own pixels or tokens.
    """

    case: str
    tower: Literal["image", "text"]
    why: str
    cosine: float


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model was imported: `reference` is the library and version that gave the golden vectors."""

    reference: str
    choices: tuple[Choice, ...] = ()
    stages: tuple[ProofStage, ...] = ()
    differences: tuple[ImportDifference, ...] = ()

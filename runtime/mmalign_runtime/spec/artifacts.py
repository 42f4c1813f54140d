"""The files that compute a bundle's towers: for which engine, in which precision, and how far from the reference."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from mmalign_runtime.spec.towers import Name

Precision = Literal["fp32", "fp16", "int8"]

# What an artifact is made for. onnxruntime and OpenVINO run the same .onnx files.
ONNX: Final = "onnx"
AOTINDUCTOR: Final = "aotinductor"
TORCH_COMPILE: Final = "torch.compile"

# The cosine to PyTorch's vectors that every golden case keeps in fewer bits, where quantizing was told nothing else.
LEAST_GOLDEN_COSINE = 0.97

# What artifacts call them, beside the names of towers.
REGIONS: Final = "regions"
SCORES: Final = "scores"

Side = Annotated[int, msgspec.Meta(ge=1)]


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an artifact's vectors were from the reference's when the bundle was made, over all golden cases.

    `min_cosine` and `max_abs_difference` were measured; the two bounds are what `verify` holds the artifact to, against
    the reference's vectors, or against its own where it has golden cases of its own. Such an artifact keeps at least
    `least_cosine` to the reference's in every case besides. In a bundle that was written as format 1 they are of all
    towers together.
    """

    num_cases: int
    min_cosine: float
    max_abs_difference: float
    cosine_bound: float
    abs_bound: float
    least_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] = LEAST_GOLDEN_COSINE


class Quantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an artifact of fewer bits was chosen: the `report` with every candidate, and the figures of this one.

    `mean_cosine` is to float32 on the evaluation pairs, `lost_recall_at_1` the points of recall lost there, in the
    worse direction. `clipping` is the file that counts clipped values. `weight_level` is the largest level that an
    eight-bit weight was rounded to. What format 1 did not keep is None.
    """

    report: str
    recipe: str | None = None
    mean_cosine: float | None = None
    lost_recall_at_1: float | None = None
    clipping: str | None = None
    weight_level: Annotated[int, msgspec.Meta(ge=1, le=127)] | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tower for one engine in one precision.

    `file` is empty for what was held to the reference and not kept. `external` are files with weights that `file`
    refers to. `golden` are golden cases with this artifact's own vectors: rounding moves a vector further than another
    machine may.
    """

    tower: str
    engine: Name
    precision: Precision = "fp32"
    file: str = ""
    external: tuple[str, ...] = ()
    parity: Parity | None = None
    golden: str | None = None
    quantization: Quantization | None = None

    @property
    def kind(self) -> str:
        """What it is, whichever the tower: "onnx-fp32", "aotinductor-fp32"."""
        return f"{self.engine}-{self.precision}"

    def files(self) -> dict[str, str]:
        """Return the files that it names, by field."""
        chosen = self.quantization
        named: dict[str, str | None] = {"file": self.file, "golden": self.golden}
        named |= {f"external[{number}]": name for number, name in enumerate(self.external)}
        if chosen is not None:
            named |= {"quantization.report": chosen.report, "quantization.clipping": chosen.clipping}
        return {field: name for field, name in named.items() if name}


class Attention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the regions of an image lie, and the tensors of the two graphs, by role.

    The graph "regions" takes what the image tower takes, by the same name, and gives `image_tokens` (B, 1 + N, D): the
    image's vector, then a token of each of the N = `rows` x `columns` regions, row after row. The graph "scores" takes
    `text_embeds` (T, D) and `image_tokens` (I, 1 + N, D) and gives `attended` (T, I, 1 + N): the score of a text and an
    image, then what the text weighs the image's regions by.
    """

    rows: Side
    columns: Side
    text_embeds: Name = "text_embeds"
    image_tokens: Name = "image_tokens"
    attended: Name = "attended"

    @property
    def num_tokens(self) -> int:
        """1 + N, the tokens of an image: its vector and its regions."""
        return 1 + self.rows * self.columns

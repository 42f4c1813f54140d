"""What a bundle is: its towers by name, the files that compute them, and how their vectors are compared.

Everything that decides what a vector is stands in these structs. Nothing here opens a model or knows a provider.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeVar

import msgspec

from mmalign_runtime.errors import BundleError
from mmalign_runtime.spec.artifacts import ONNX, REGIONS, SCORES, Artifact, Attention, Precision
from mmalign_runtime.spec.imports import ImportRecord
from mmalign_runtime.spec.towers import Name, Tower

SPEC_NAME = "bundle.json"
FORMAT_MAJOR, FORMAT_MINOR = 2, 0
FORMAT_VERSION = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
# The first release of mmalign-runtime that reads what this version writes: for the errors of older ones.
NEEDS_RUNTIME = "0.1.0"

Modality = Literal["image", "text"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
SomeTower = TypeVar("SomeTower", bound=Tower)

_VARIANT_DIGITS = 12
_MOST_EXACT_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "int8")


class Similarity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training made of a cosine: the logit `scale * cosine + bias`.

    "softmax" compares the logits of one item with all others', "sigmoid" makes each one the probability of a match.
    """

    kind: Literal["softmax", "sigmoid"]
    scale: float
    bias: float = 0.0


class SourceFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that a bundle was made from."""

    sha256: Sha256
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle was made from: `kind` "run" is a training run, others name where a model was imported from.

    `name` is the run's folder or the model's name; `library` and its `version` computed the reference's vectors.
    `files` are those that were read, by name.
    """

    kind: Name
    name: str
    library: str
    version: str
    files: dict[str, SourceFile] = {}


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a bundle comes from: its source, the data, the opset, versions, and when it was made (ISO 8601, UTC).

    `imported` is how a model of another library was proven; None for a training run.
    """

    created: str
    source: Source
    data: tuple[str, ...]
    opset_version: int
    versions: dict[str, str]
    weights_licence: str = "unknown"
    imported: ImportRecord | None = None


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of bundle.json. `files` maps every other file (path from the bundle's folder) to its sha256.

    `needs` is the first release of mmalign-runtime that reads it. `golden` names the cases with the reference's
    vectors. `prefix_dims` are the numbers of first components, below `embed_dim`, that the model was trained to be
    compared by alone (Matryoshka): take them, and divide by their length. `attention` says of a second stage of search,
    whose graphs are among the artifacts.
    """

    space_id: str
    embed_dim: Annotated[int, msgspec.Meta(ge=1)]
    similarity: Similarity
    towers: Annotated[dict[Name, Tower], msgspec.Meta(min_length=1)]
    artifacts: tuple[Artifact, ...]
    golden: str
    provenance: Provenance
    files: dict[str, Sha256]
    format_version: str = FORMAT_VERSION
    needs: str = NEEDS_RUNTIME
    prefix_dims: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    attention: Attention | None = None
    seal: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a prefix as long as the vector."""
        if self.prefix_dims and max(self.prefix_dims) >= self.embed_dim:
            raise ValueError(f"prefix_dims {list(self.prefix_dims)} are to be below embed_dim, {self.embed_dim}")

    def tower(self, name: str, kind: type[SomeTower]) -> SomeTower:
        """Return a tower by name. Raises BundleError when there is none, or it is not of that kind."""
        found = self.towers.get(name)
        if not isinstance(found, kind):
            seen = ", ".join(f"{name} ({type(tower).__name__})" for name, tower in self.towers.items())
            raise BundleError(
                f"the bundle has no {kind.__name__} called {name!r}; it has {seen}. Leave that tower out (towers), or "
                "use another bundle."
            )
        return found

    def graphs(self) -> tuple[str, ...]:
        """Return what artifacts are of: the towers, and the graphs of the second stage where there is one."""
        return (*self.towers, *((REGIONS, SCORES) if self.attention else ()))

    def offered(self, *, tower: str | None = None, engine: str = ONNX) -> tuple[Artifact, ...]:
        """Return the artifacts that have a file for an engine, of one tower or of all, most exact first."""
        found = (each for each in self.artifacts if each.file and each.engine == engine)
        of_tower = (each for each in found if tower in (None, each.tower))
        return tuple(sorted(of_tower, key=lambda each: _MOST_EXACT_FIRST.index(each.precision)))

    def artifact(self, tower: str, precision: Precision = "fp32", engine: str = ONNX) -> Artifact:
        """Return one tower's artifact. Raises BundleError when the tower is not offered so."""
        offered = self.offered(tower=tower, engine=engine)
        for each in offered:
            if each.precision == precision:
                return each
        seen = ", ".join(each.precision for each in offered) or "none"
        raise BundleError(
            f"the {tower} tower has no {precision} file; it offers {seen}. Ask for one of these, or leave the "
            "tower out (towers)."
        )

    def variant_id(self, precision: Precision, engine: str = ONNX) -> str:
        """Return the id of one precision's files: vectors of two variants share a space, not their last digits."""
        offered = (each for each in self.offered(engine=engine) if each.tower in self.towers)
        chosen = [each for each in offered if each.precision == precision]
        names = sorted({name for each in chosen for name in (each.file, *each.external)})
        digest = hashlib.sha256("".join(self.files[name] for name in names).encode()).hexdigest()
        return f"{precision}-{digest[:_VARIANT_DIGITS]}"

    def precisions(self, engine: str = ONNX) -> tuple[Precision, ...]:
        """Return the precisions that every tower offers, most exact first."""
        offered = {(each.tower, each.precision) for each in self.offered(engine=engine)}
        return tuple(each for each in _MOST_EXACT_FIRST if all((name, each) in offered for name in self.towers))

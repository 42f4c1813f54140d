"""Everything the report shows, typed, and how it is read from what the commands wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.demo.drawings import Attribution, Drawing
from mmalign.figures.scores import Evaluation
from mmalign.training.metrics import read_metrics
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.ranking import Hit
from mmalign_runtime.spec import Provenance
from mmalign_runtime.verify import VerifyReport


class Step(msgspec.Struct, frozen=True):
    """A step that was run: what it is for, the line a user would type, and how long it took."""

    title: str
    command: str
    seconds: float


class CurvePoint(msgspec.Struct, frozen=True):
    """One step of training; recalls at 1 on the validation concepts (0..1) and the score where it was validated."""

    step: int
    loss: float
    image_to_text: float | None = None
    text_to_image: float | None = None
    score: float | None = None


class FoundDrawing(msgspec.Struct, frozen=True):
    """A drawing that a search found, its cosine, and whether it is a right answer."""

    drawing: Drawing
    score: float
    is_right: bool


class TextSearch(msgspec.Struct, frozen=True):
    """What a text found, best first."""

    text: str
    found: tuple[FoundDrawing, ...]

    @property
    def num_right(self) -> int:
        """How many of the drawings are right answers."""
        return sum(found.is_right for found in self.found)


class FoundLabel(msgspec.Struct, frozen=True):
    """A name that a search found for a drawing, its cosine, and whether it is the drawing's own."""

    label: str
    score: float
    is_right: bool


class ImageSearch(msgspec.Struct, frozen=True):
    """What a drawing found: the nearest names, and the nearest drawings other than itself."""

    query: Drawing
    labels: tuple[FoundLabel, ...]
    found: tuple[FoundDrawing, ...]


class GoldenImage(msgspec.Struct, frozen=True):
    """One image case of the bundle: its file, and its size in pixels."""

    name: str
    path: Path
    width: int
    height: int


class DemoResults(msgspec.Struct, frozen=True, kw_only=True):
    """All that the report is made of."""

    steps: tuple[Step, ...]
    curve: tuple[CurvePoint, ...]
    evaluation: Evaluation
    text_searches: tuple[TextSearch, ...]
    image_searches: tuple[ImageSearch, ...]
    num_drawings: int
    verification: VerifyReport
    golden: tuple[GoldenImage, ...]
    bench: BenchReport
    provenance: Provenance
    attributions: tuple[Attribution, ...]


class Found(msgspec.Struct, frozen=True):
    """A line of `mmalign search --json`."""

    query: str
    hits: tuple[Hit, ...]


def read_curve(path: Path) -> tuple[CurvePoint, ...]:
    points = []
    for row in read_metrics(path):
        names = ("val_image_to_text_at_1", "val_text_to_image_at_1", "val_score")
        validated = [float(row[name]) for name in names] if row["val_score"] else []
        points.append(CurvePoint(int(row["step"]), float(row["loss"]), *validated))
    return tuple(points)


def read_found(path: Path) -> tuple[Found, ...]:
    return msgspec.json.decode(path.read_bytes(), type=tuple[Found, ...])


def image_search(
    query: Drawing, named: Found, found: Found, labels: Sequence[str], drawings: Mapping[str, Drawing]
) -> ImageSearch:
    """Join a drawing's hits with the names and drawings they stand for; the drawing itself is left out."""
    names = tuple(FoundLabel(labels[int(hit.id)], hit.score, labels[int(hit.id)] == query.label) for hit in named.hits)
    others = [hit for hit in found.hits if hit.id != query.name]
    return ImageSearch(query, names, found_drawings(others, drawings, (query.label,)))


def found_drawings(
    hits: Sequence[Hit], drawings: Mapping[str, Drawing], labels: Sequence[str]
) -> tuple[FoundDrawing, ...]:
    """Join hits with the drawings they name, and mark those of the right labels."""
    return tuple(FoundDrawing(drawings[hit.id], hit.score, drawings[hit.id].label in labels) for hit in hits)

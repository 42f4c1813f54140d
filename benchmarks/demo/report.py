"""Fills report.html.jinja with what the demo measured: one HTML file that holds all it shows and opens offline."""

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup
from PIL import Image

from benchmarks.demo import plots
from benchmarks.demo.results import DemoResults, GoldenImage
from mmalign.figures.scores import Scored, SourceScores
from mmalign_runtime.atomic import replacing
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec

_FOLDER = Path(__file__).parent
_METHODS = (("trained", "--model"), ("linear map", "--map"), ("chance", "--chance"))
_COLUMNS = (
    *("drawing to<br>name @1", "@5", "@10", "median<br>rank"),
    *("name to<br>drawing @1", "@5", "@10", "median<br>rank", "zero-shot<br>classes"),
)
_RANK_COLUMNS = (3, 7)  # of _COLUMNS: of a rank the lowest is best, of a share the highest
_STAGE_COLOURS = {"decode": "--second", "tokenize": "--second", "preprocess": "--map", "tower": "--model"}
_THUMBNAIL_SIDE = 92  # pixels: twice the side it is shown at, for dense screens


class Figure(msgspec.Struct, frozen=True):
    """A headline figure and what it says."""

    value: str
    caption: str


class Cell(msgspec.Struct, frozen=True):
    """A figure of a table, and whether it is the best of its column's methods."""

    words: str
    is_best: bool


class Method(msgspec.Struct, frozen=True):
    """What one method reached in one style: its bar, the longest of which is 1 long, and its row of the table."""

    name: str
    colour: str
    at_1: float
    length: float
    cells: tuple[Cell, ...]


class Style(msgspec.Struct, frozen=True):
    """Recall in one style of drawing."""

    name: str
    is_held_out: bool
    methods: tuple[Method, ...]


def write_report(results: DemoResults, path: Path) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(render(results), encoding="utf-8")
    return path


def render(results: DemoResults) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"webp_uri": webp_uri, "thumbnail": thumbnail}
    return environment.get_template("report.html.jinja").render(
        results=results,
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
        figures=headline_figures(results),
        flows=_flows(results),
        text_searches=sorted(results.text_searches, key=lambda search: search.num_right, reverse=True),
        recall=[_style(scores) for scores in results.evaluation.sources],
        recall_columns=[Markup(column) for column in _COLUMNS],
        charts=_charts(results),
        verification=results.verification,
        parity=_parity(results),
        golden={image.name: image for image in results.golden},
        card=results.bench.environment,
        stage_colours=_STAGE_COLOURS,
        facts=_facts(results),
    )


def headline_figures(results: DemoResults) -> tuple[Figure, ...]:
    """Return what the demo comes to: recall in seen styles and in the held-out one, parity, latency."""
    seen = [scores for scores in results.evaluation.sources if not scores.is_held_out]
    held_out = [scores for scores in results.evaluation.sources if scores.is_held_out]
    cases = results.verification.cases
    worst = max(case.max_abs_difference for case in cases)
    num_equal = sum(case.passed for case in cases)
    bound = max(each.abs_bound for each in results.verification.bounds.values())
    text_ms, image_ms = _single_ms(results, "text"), _single_ms(results, "image")
    return (
        _recall_figure(seen, "drawings named right at once, in trained styles"),
        _recall_figure(held_out, "in a style never trained on"),
        Figure(
            f"{num_equal}/{len(cases)}", f"cases equal to PyTorch; largest difference {worst:.0e}, allowed {bound:.0e}"
        ),
        Figure(f"{text_ms:.1f} ms", f"for a text and {image_ms:.0f} ms for an image, median, one at a time"),
    )


def webp_uri(data: bytes) -> str:
    """Return the bytes of a .webp file as a URI, so that the page holds them."""
    return f"data:image/webp;base64,{b64encode(data).decode()}"


def thumbnail(golden: GoldenImage) -> str:
    """Return a small picture of a golden image as a URI, as the model sees it: turned, on white."""
    small = Image.fromarray(decode_image(golden.path, ImageSpec()))
    small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return webp_uri(buffer.getvalue())


def _recall_figure(sources: Sequence[SourceScores], words: str) -> Figure:
    model, linear_map, chance = (
        sum(scored.image_to_text.at_1 for scored in of_method) / len(sources)
        for of_method in zip(*map(_methods, sources), strict=True)
    )
    return Figure(f"{model:.0%}", f"{words}; linear map {linear_map:.0%}, chance {chance:.1%}")


def _single_ms(results: DemoResults, kind: str) -> float:
    return next(t.p50_ms for t in results.bench.timings if (t.kind, t.stage, t.batch_size) == (kind, "total", 1))


def _flows(results: DemoResults) -> Markup:
    embed_dim = results.verification.runtime.embed_dim
    return Markup(plots.flow(embed_dim, is_tall=False) + plots.flow(embed_dim, is_tall=True))


def _style(scores: SourceScores) -> Style:
    recalls = [scored.image_to_text.at_1 for scored in _methods(scores)]
    columns = zip(*(_values(scored) for scored in _methods(scores)), strict=True)
    cells = zip(*(_cells(column, is_rank=at in _RANK_COLUMNS) for at, column in enumerate(columns)), strict=True)
    methods = (
        Method(name, colour, share, share / max(recalls) if max(recalls) else 0.0, row)
        for (name, colour), share, row in zip(_METHODS, recalls, cells, strict=True)
    )
    return Style(scores.source, scores.is_held_out, tuple(methods))


def _values(scored: Scored) -> list[float]:
    both = [(r.at_1, r.at_5, r.at_10, r.median_rank) for r in (scored.image_to_text, scored.text_to_image)]
    return [*both[0], *both[1], *([] if scored.zero_shot_accuracy is None else [scored.zero_shot_accuracy])]


def _cells(column: Sequence[float], *, is_rank: bool) -> list[Cell]:
    words = [f"{value:.0f}" if is_rank else f"{value:.1%}" for value in column]
    best = words[column.index(min(column) if is_rank else max(column))]
    return [Cell(word, word == best) for word in words]


def _methods(scores: SourceScores) -> tuple[Scored, Scored, Scored]:
    return scores.model, scores.linear_map, scores.chance


def _charts(results: DemoResults) -> dict[str, Markup]:
    curve = results.curve
    best = max((point.score, point.step) for point in curve if point.score is not None)[1]

    def chart(title: str, *, is_percent: bool, **colours: str) -> Markup:
        lines = {
            css: [(at.step, y) for at in curve if (y := getattr(at, name)) is not None] for css, name in colours.items()
        }
        return Markup(plots.line_chart(lines, title, best, is_percent=is_percent))

    return {
        "loss": chart("Loss of each step", is_percent=False, model="loss"),
        "recall": chart("Validation recall", is_percent=True, model="image_to_text", second="text_to_image"),
    }


def _parity(results: DemoResults) -> dict[str, object]:
    cases, bounds = results.verification.cases, results.verification.bounds.values()
    differences, abs_bound = [case.max_abs_difference for case in cases], max(each.abs_bound for each in bounds)
    title = "The largest difference of every case, beside the bound"
    dots = "".join(plots.strip(differences, abs_bound, title, is_narrow=is_narrow) for is_narrow in (False, True))
    return {
        "dots": Markup(dots),
        "num_equal": sum(case.passed for case in cases),
        "cosine_bound": min(each.cosine_bound for each in bounds),
    }


def _facts(results: DemoResults) -> dict[str, object]:
    card, made = results.bench.environment, results.provenance
    return {
        "Date": card.date,
        "Processor": f"{card.cpu}, {card.runtime.num_threads} threads",
        "System": card.platform,
        "Runtime": f"mmalign-runtime {card.mmalign_runtime}, onnxruntime {card.onnxruntime}, python {card.python}",
        "Provider": card.runtime.provider,
        "Exported with": ", ".join(f"{name} {found}" for name, found in sorted(made.versions.items())),
        "ONNX opset": made.opset_version,
        "Space": card.runtime.space_id,
        "Variant": card.runtime.variant_id,
    }

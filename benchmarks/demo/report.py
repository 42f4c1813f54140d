"""The report: one HTML file that holds all it shows, styles and images too, so that it opens anywhere, offline."""

from html import escape
from pathlib import Path

from benchmarks.demo import colophon, gallery, plots, quality, serving
from benchmarks.demo.markup import Figure
from benchmarks.demo.results import DemoResults
from mmalign.scores import Scored, SourceScores
from mmalign_runtime.atomic import replacing

_STYLE = Path(__file__).with_name("report.css")


def write_report(results: DemoResults, path: Path) -> Path:
    """Write the report and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(render(results), encoding="utf-8")
    return path


def render(results: DemoResults) -> str:
    """Return the whole page."""
    body = "\n".join(
        [
            _title(results),
            _headline(headline_figures(results)),
            _way_of_the_data(results),
            gallery.text_searches(results),
            gallery.image_searches(results),
            quality.recall(results),
            quality.training(results),
            serving.parity(results),
            serving.latency(results),
            colophon.commands(results),
            colophon.environment(results),
            colophon.attributions(results),
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mmalign demo: words and drawings in one space</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""


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


def _recall_figure(sources: list[SourceScores], words: str) -> Figure:
    model, linear_map, chance = (
        sum(_at_1(scored) for scored in of_method) / len(sources)
        for of_method in zip(*((s.model, s.linear_map, s.chance) for s in sources), strict=True)
    )
    return Figure(f"{model:.0%}", f"{words}; linear map {linear_map:.0%}, chance {chance:.1%}")


def _at_1(scored: Scored) -> float:
    return scored.image_to_text.at_1


def _single_ms(results: DemoResults, kind: str) -> float:
    return next(t.p50_ms for t in results.bench.timings if (t.kind, t.stage, t.batch_size) == (kind, "total", 1))


def _title(results: DemoResults) -> str:
    minutes = sum(step.seconds for step in results.steps) / 60
    return f"""<p class="kicker">mmalign demo</p>
<h1>Words and drawings, taught to meet in one space</h1>
<p class="lede">In {minutes:.1f} minutes on a CPU, two pretrained towers were aligned on emoji drawings and their names,
exported to ONNX, proven equal to PyTorch, and used to search drawings of things they had never been shown.</p>"""


def _headline(figures: tuple[Figure, ...]) -> str:
    cells = "".join(f"<div><dt>{escape(f.value)}</dt><dd>{escape(f.caption)}</dd></div>" for f in figures)
    return f'<dl class="headline">{cells}</dl>'


def _way_of_the_data(results: DemoResults) -> str:
    embed_dim = results.verification.runtime.embed_dim
    pictures = plots.flow(embed_dim, is_tall=False) + plots.flow(embed_dim, is_tall=True)
    return f"""<figure>{pictures}<figcaption>Two pretrained towers stay as they are; only the projections learn, from
pairs of drawing and name. All of it, preprocessing and tokenizer included, is exported to one folder that needs no
PyTorch.</figcaption></figure>"""

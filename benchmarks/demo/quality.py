"""The report's account of the model: how training went, and recall beside chance and the linear map."""

from collections.abc import Sequence
from html import escape

from benchmarks.demo import plots
from benchmarks.demo.markup import legend_key, section, table
from benchmarks.demo.results import DemoResults
from mmalign.scores import Scored, SourceScores

_METHODS = (("trained", "--model"), ("linear map", "--map"), ("chance", "--chance"))
_COLUMNS = [
    "drawing to<br>name @1",
    "@5",
    "@10",
    "median<br>rank",
    "name to<br>drawing @1",
    "@5",
    "@10",
    "median<br>rank",
]
_RANK_COLUMNS = (3, 7)  # of _COLUMNS: of a rank the lowest is best, of a share the highest


def recall(results: DemoResults) -> str:
    """Return recall a style, as bars and as a table."""
    words = """Every figure is on things that training never saw. The bar to clear is not chance but a linear map,
solved in closed form from one frozen tower to the other: it takes no training at all. The bars show how often the
nearest of all names is the drawing's own."""
    sources = results.evaluation.sources
    rows = [row for scores in sources for row in _rows(scores)]
    body = f"""<div class="bars">{"".join(map(_bars, sources))}</div>
{table(["-style", "-", *_COLUMNS, "zero-shot<br>classes"], rows)}
<p class="aside">Bold is the best of the three. Zero-shot classes: which of {sources[0].num_classes} groups, such as
“animals &amp; nature”, a drawing belongs to, told by the groups' names alone. evaluation.html, beside this page, has
intervals, calibration, the worst failures and nearest neighbours as pictures, and the course of the temperature.</p>"""
    return section("recall", "Does training earn its keep?", words, body)


def training(results: DemoResults) -> str:
    """Return the curves of loss and validation recall."""
    words = """Each drawing must pick its own name out of a batch, and each name its drawing. The weights that are kept
are those of the step that did best on validation concepts, which are neither trained on nor tested on."""
    validated = [(point.score, point.step) for point in results.curve if point.score is not None]
    best = max(validated)[1]
    loss = plots.line_chart((plots.loss_series(results.curve),), "Loss of each step", best, is_percent=False)
    recalls = plots.line_chart(plots.recall_series(results.curve), "Validation recall", best, is_percent=True)
    legend = legend_key("--model", "drawing to name") + legend_key("--second", "name to drawing")
    body = f"""<div class="charts"><figure><h3>Loss of each step</h3>{loss}</figure>
<figure><h3>Recall at 1, validation concepts</h3>{recalls}
<figcaption class="legend">{legend}</figcaption></figure></div>"""
    return section("training", "How it learned", words, body)


def _bars(scores: SourceScores) -> str:
    recalls = [scored.image_to_text.at_1 for scored in _methods(scores)]
    bars = "".join(
        _bar(name, colour, share, max(recalls)) for (name, colour), share in zip(_METHODS, recalls, strict=True)
    )
    note = '<span class="held">never trained on</span>' if scores.is_held_out else "<span>seen in training</span>"
    return f"<div><h3>{escape(scores.source)}{note}</h3>{bars}</div>"


def _bar(name: str, colour: str, share: float, longest: float) -> str:
    length = share / longest if longest else 0.0
    return f"""<div class="bar"><span>{name}</span><span class="track">
<i style="--key:var({colour});--share:{length:.4f}"></i><b>{share:.1%}</b></span></div>"""


def _rows(scores: SourceScores) -> list[str]:
    columns = list(zip(*(_values(scored) for scored in _methods(scores)), strict=True))
    cells = [_column_cells(column, is_rank=index in _RANK_COLUMNS) for index, column in enumerate(columns)]
    style = escape(scores.source) + (", held out" if scores.is_held_out else "")
    rows = []
    for (name, _), row in zip(_METHODS, zip(*cells, strict=True), strict=True):
        group = "" if rows else ' class="group"'
        names = f'<td class="word style">{"" if rows else style}</td><td class="word">{name}</td>'
        rows.append(f"<tr{group}>{names}{''.join(row)}</tr>")
    return rows


def _values(scored: Scored) -> list[float]:
    both = [(r.at_1, r.at_5, r.at_10, r.median_rank) for r in (scored.image_to_text, scored.text_to_image)]
    return [*both[0], *both[1], *([] if scored.zero_shot_accuracy is None else [scored.zero_shot_accuracy])]


def _column_cells(column: Sequence[float], *, is_rank: bool) -> list[str]:
    """Return the cells of one column, the best of its methods marked."""
    words = [f"{value:.0f}" if is_rank else f"{value:.1%}" for value in column]
    best = words[column.index(min(column) if is_rank else max(column))]
    return [f"<td{' class=best' if word == best else ''}>{word}</td>" for word in words]


def _methods(scores: SourceScores) -> tuple[Scored, Scored, Scored]:
    return scores.model, scores.linear_map, scores.chance

"""The page itself: figures, calibration, the course of training, and pictures of what goes wrong. Texts are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from mmalign.figures.rows import Group, groups, remarks
from mmalign.figures.scores import BundleScores, Diagnosis, Evaluation, Scored, SourceScores
from mmalign.report.charts import line_chart, reliability_chart
from mmalign.report.pictures import ImageQuery, Pictures, TextQuery, Tile
from mmalign.report.style import STYLE
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing

_COLUMNS = {
    "": "name",
    "model": "model",
    "95%": "interval",
    "linear map": "linear_map",
    "ahead, 95%": "ahead",
    "chance": "chance",
}


class CoursePoint(msgspec.Struct, frozen=True):
    """One step of training: its loss and the temperature, the inverse of the scale of cosines."""

    step: int
    loss: float
    temperature: float


class Section(msgspec.Struct, frozen=True):
    """What is shown of one source."""

    title: str
    about: str
    groups: Sequence[Group]
    model: Scored
    diagnosis: Diagnosis | None
    pictures: Pictures


def run_sections(evaluation: Evaluation, pictures: Sequence[Pictures]) -> list[Section]:
    """Return a section a source of a run."""
    return [_of_source(evaluation, *each) for each in zip(evaluation.sources, pictures, strict=True)]


def bundle_section(scores: BundleScores, pictures: Pictures) -> Section:
    """Return the section of a bundle's pairs."""
    about = f"{scores.num_images:,} images, {scores.num_captions:,} captions, {scores.precision}"
    shown = groups(scores.model, None, scores.chance, None, scores.num_classes)
    return Section(pictures.name, about, shown, scores.model, scores.diagnosis, pictures)


def write_report(path: Path, title: str, sections: Sequence[Section], course: Sequence[CoursePoint] = ()) -> None:
    """Write the page. `course` is that of a run's training. Raises CheckpointError where it cannot be written."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *map(_section, sections), _course(course)])
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
    with named_writes(path, "Check the folder of --report."), replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _of_source(evaluation: Evaluation, scores: SourceScores, pictures: Pictures) -> Section:
    held_out = ", held out of training" if scores.is_held_out else ""
    about = f"{evaluation.split}{held_out}: {scores.num_images:,} images, {scores.num_captions:,} captions"
    shown = groups(scores.model, scores.linear_map, scores.chance, scores.differences, scores.num_classes)
    return Section(scores.source, about, shown, scores.model, scores.diagnosis, pictures)


def _section(section: Section) -> str:
    shown = section.pictures
    facts = "" if section.diagnosis is None else _facts(section.model, section.diagnosis)
    return f"""<section><h2>{escape(section.title)}</h2><p>{escape(section.about)}</p>
{_table(section.groups)}{facts}
{_cards("Images whose caption came last", _WORST_IMAGES, [_image_card(each) for each in shown.worst_images])}
{_cards("Captions whose image came last", _WORST_TEXTS, [_text_card(each) for each in shown.worst_texts])}
{_cards("Nearest neighbours", _NEIGHBOURS, [_image_card(each) for each in shown.neighbours])}</section>"""


_WORST_IMAGES = "The images whose nearest right caption has the highest rank, and the five captions that came first."
_WORST_TEXTS = (
    "The captions whose nearest right image, beside them, has the highest rank, and the five that came first."
)
_NEIGHBOURS = "Images spread over all of them: the five nearest captions, right ones marked, and other images."


def _table(shown: Sequence[Group]) -> str:
    used = {t: f for t, f in _COLUMNS.items() if any(getattr(row, f) for group in shown for row in group.rows)}
    head = "".join(f"<th>{title}</th>" for title in used)
    rows = []
    for group in shown:
        rows.append(f'<tr class="title"><td colspan="{len(used)}">{escape(group.title)}</td></tr>')
        rows += [
            f"<tr>{''.join(f'<td>{escape(getattr(row, field))}</td>' for field in used.values())}</tr>"
            for row in group.rows
        ]
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _facts(model: Scored, diagnosis: Diagnosis) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in remarks(model, diagnosis))
    found = diagnosis.calibration
    named = (("image to text", found.image_to_text), ("text to image", found.text_to_image), ("classes", found.classes))
    charts = "".join(
        f"<figure>{reliability_chart(each, f'Reliability, {name}')}<figcaption>{name}</figcaption></figure>"
        for name, each in named
        if each is not None
    )
    words = (
        "<p>How often the nearest answer is right, over the probability it was given: 15 bins of as many answers.</p>"
    )
    drawn = f'<h3>Calibration</h3>{words}<div class="charts">{charts}</div>' if charts else ""
    return f'<ul class="facts">{lines}</ul>{drawn}'


def _course(points: Sequence[CoursePoint]) -> str:
    if not points:
        return ""
    temperature = line_chart([(point.step, point.temperature) for point in points], "Temperature of each step")
    loss = line_chart([(point.step, point.loss) for point in points], "Loss of each step")
    return f"""<section><h2>The course of training</h2><div class="charts">
<figure>{temperature}<figcaption>temperature, 1 / scale of cosines, over steps</figcaption></figure>
<figure>{loss}<figcaption>loss, over steps</figcaption></figure></div></section>"""


def _cards(title: str, words: str, cards: Sequence[str]) -> str:
    if not cards:
        return ""
    return f'<h3>{title}</h3><p>{words}</p><div class="grid">{"".join(cards)}</div>'


def _image_card(each: ImageQuery) -> str:
    texts = "".join(
        f'<li class="right">{escape(t.text)}</li>' if t.is_right else f"<li>{escape(t.text)}</li>" for t in each.texts
    )
    own = escape(", ".join(each.query.captions))
    return f"""<article class="card"><div class="query"><div>{_image(each.query)}</div>
<div><span class="rank">rank {each.rank:,}</span><div class="own">{own}</div><ol>{texts}</ol></div></div>
{_tiles(each.images)}</article>"""


def _text_card(each: TextQuery) -> str:
    return f"""<article class="card"><div class="query"><div>{_image(each.own)}</div>
<div><span class="rank">rank {each.rank:,}</span><div class="own">{escape(each.text)}</div>{_tiles(each.images)}</div>
</div></article>"""


def _tiles(tiles: Sequence[Tile]) -> str:
    return f'<div class="tiles">{"".join(map(_image, tiles))}</div>' if tiles else ""


def _image(tile: Tile) -> str:
    words = escape(", ".join(tile.captions))
    return f'<img src="{tile.uri}" alt="{words}" title="{words}">'

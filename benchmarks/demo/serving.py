"""The report's account of the bundle: equal to PyTorch case by case, and how long each stage takes."""

import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from benchmarks.demo import plots
from benchmarks.demo.markup import legend_key, section, table, webp_uri
from benchmarks.demo.results import DemoResults, GoldenImage
from mmalign_runtime.bench import StageTiming
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec
from mmalign_runtime.verify import CaseResult, CheckResult

_THUMBNAIL_SIDE = 92  # pixels: twice the side it is shown at, for dense screens
_LETTER = "T"  # in a picture's place, for a text
_STAGE_COLOURS = {"decode": "--second", "tokenize": "--second", "preprocess": "--map", "tower": "--model"}


def parity(results: DemoResults) -> str:
    """Return every golden case with its difference from PyTorch."""
    words = """The bundle carries real files and texts, and the vectors that PyTorch gave for them. Before it serves, it
is held to them on the machine at hand, from the bytes of the file to the vector, and its vectors to themselves,
whatever else is going on."""
    report = results.verification
    files = {image.name: image for image in results.golden}
    cases = report.cases
    num_equal = sum(case.passed for case in cases)
    differences = [case.max_abs_difference for case in cases]
    title = "The largest difference of every case, beside the bound"
    abs_bound = max(each.abs_bound for each in report.bounds.values())
    cosine_bound = min(each.cosine_bound for each in report.bounds.values())
    dots = "".join(plots.strip(differences, abs_bound, title, is_narrow=is_narrow) for is_narrow in (False, True))
    items = "".join(_golden_item(case, files.get(case.name) if case.kind == "image" else None) for case in cases)
    verdict = (
        f'<span class="verdict{"" if report.passed else " differs"}">{num_equal} of {len(cases)} cases equal.</span>'
    )
    body = f"""<figure>{dots}<figcaption>{verdict} Each dot is a case: the largest difference in any number of its
vector, on a logarithmic axis. To the right of the red line a bundle is refused, and so it is when a cosine falls below
{cosine_bound}.</figcaption></figure>
{table(["-check", "-what", "moved by", "at most", "-verdict"], [_check_row(check) for check in report.checks])}
<ul class="golden">{items}</ul>"""
    return section("parity", "The same vectors, with proof", words, body)


def latency(results: DemoResults) -> str:
    """Return the time of each stage, as bars an item and as a table a batch."""
    timings, card = results.bench.timings, results.bench.environment
    words = f"""Median time of one item, by stage, on {card.runtime.num_threads} threads of {escape(card.cpu)}. The
images are the bundle's golden ones: mostly photographs, one of them of 20 megapixels."""
    stages = "".join(_stage_bar(total, timings) for total in timings if total.stage == "total")
    keys = (("--second", "decode or tokenize"), ("--map", "preprocess"), ("--model", "tower"))
    legend = "".join(legend_key(*key) for key in keys)
    columns = ["-input", "-stage", "batch", "p50 ms", "p90 ms", "p99 ms", "items/s"]
    body = f"""<div class="stages">{stages}</div><div class="legend">{legend}</div>
<details><summary>All figures, milliseconds a batch</summary>{table(columns, list(map(_row, timings)))}</details>"""
    return section("latency", "Where the time goes", words, body)


def _check_row(check: CheckResult) -> str:
    figures = [f"{check.max_abs_difference:.1e}", f"{check.bound:.0e}"] if check.name != "placement" else ["", ""]
    words = [f'<td class="word">{escape(word)}</td>' for word in (check.name, check.detail)]
    verdict = f'<td class="word">{"holds" if check.passed else "fails"}</td>'
    return f"<tr>{''.join(words)}{''.join(f'<td>{figure}</td>' for figure in figures)}{verdict}</tr>"


def _golden_item(case: CaseResult, image: GoldenImage | None) -> str:
    thumb = f'<img src="{_thumbnail(image)}" alt="">' if image else _LETTER
    note = f"{image.width:,} × {image.height:,}" if image else case.kind
    if not case.passed:
        note += f", {case.stage}: {escape(case.detail)}"
    difference = f'<span class="num" title="cosine {case.cosine:.8f}">{case.max_abs_difference:.1e}</span>'
    return f"""<li{"" if case.passed else ' class="differs"'}><span class="thumb">{thumb}</span>
<span>{escape(case.name)}<small>{note}</small></span>{difference}</li>"""


def _thumbnail(golden: GoldenImage) -> str:
    small = Image.fromarray(decode_image(golden.path, ImageSpec()))  # as the model sees it: turned, on white
    small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return webp_uri(buffer.getvalue())


def _stage_bar(total: StageTiming, timings: Sequence[StageTiming]) -> str:
    parts = [t for t in timings if (t.kind, t.batch_size) == (total.kind, total.batch_size) and t.stage != "total"]
    how_many = "alone" if total.batch_size == 1 else f"× {total.batch_size}"
    pieces = "".join(map(_stage_piece, parts))
    item_ms = total.p50_ms / total.batch_size
    return f'<span>{total.kind} {how_many}</span><span class="stack">{pieces}</span><b>{item_ms:.1f} ms</b>'


def _stage_piece(part: StageTiming) -> str:
    style = f"--key:var({_STAGE_COLOURS[part.stage]});--share:{part.p50_ms:.4f}"
    return f'<i style="{style}" title="{part.stage} {part.p50_ms / part.batch_size:.2f} ms"></i>'


def _row(timing: StageTiming) -> str:
    names = f'<td class="word">{timing.kind}</td><td class="word">{timing.stage}</td><td>{timing.batch_size}</td>'
    cells = "".join(f"<td>{ms:,.1f}</td>" for ms in (timing.p50_ms, timing.p90_ms, timing.p99_ms))
    lead = ' class="lead"' if timing.stage == "total" else ""
    return f"<tr{lead}>{names}{cells}<td>{timing.items_per_s:,.1f}</td></tr>"

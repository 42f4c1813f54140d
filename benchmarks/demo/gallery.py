"""The report's pictures of searches: what words found, and what drawings found."""

from html import escape

from benchmarks.demo.drawings import Drawing
from benchmarks.demo.markup import section, webp_uri
from benchmarks.demo.results import DemoResults, FoundDrawing, FoundLabel, ImageSearch, TextSearch


def text_searches(results: DemoResults) -> str:
    """Return the searches by words, a card each."""
    searches = results.text_searches
    num_first = sum(search.found[0].is_right for search in searches)
    words = f"""{len(searches)} searches through {results.num_drawings:,} drawings of things that training never saw, by
four hands, one of which (OpenMoji) was held out of training altogether. Only vectors are compared, no letters. A mark
stands on right answers, which were written down beforehand: {num_first} of the {len(searches)} searches have one in
first place. The cards with the most right answers come first."""
    cards = "".join(map(_query_card, sorted(searches, key=_num_right, reverse=True)))
    return section("search", "Words find drawings", words, f'<div class="queries">{cards}</div>')


def image_searches(results: DemoResults) -> str:
    """Return the searches by drawings, a row each."""
    words = """One drawing of each style, of things that training never saw; the last is in the style it never saw
either. They were picked after a first try with four OpenMoji drawings, none of which got its name; the figures below
count them all. Beside each stand the nearest names and the nearest other drawings. A mark says: the same thing."""
    rows = "".join(_drawing_row(search) for search in results.image_searches)
    return section("drawings", "Drawings find names, and each other", words, f'<div class="drawings">{rows}</div>')


def _query_card(search: TextSearch) -> str:
    count = f"{_num_right(search)} of {len(search.found)} right"
    return f"""<article class="card query"><header><q>{escape(search.text)}</q><small>{count}</small></header>
{_found_list(search.found)}</article>"""


def _num_right(search: TextSearch) -> int:
    return sum(found.is_right for found in search.found)


def _drawing_row(search: ImageSearch) -> str:
    names = "".join(map(_name_item, search.labels))
    return f"""<article class="card drawing">{_tile(search.query)}
<div><h3>nearest names</h3><ol class="names">{names}</ol></div>
<div><h3>nearest other drawings</h3>{_found_list(search.found)}</div></article>"""


def _found_list(found: tuple[FoundDrawing, ...]) -> str:
    return f'<ol class="found">{"".join(map(_found_item, found))}</ol>'


def _found_item(found: FoundDrawing) -> str:
    title = escape(f"{found.drawing.label} ({found.drawing.style}), cosine {found.score:.3f}")
    score = f'<span class="num">{found.score:.2f}</span>'
    return f'<li{_mark(found.is_right)} title="{title}">{_tile(found.drawing)}{score}</li>'


def _name_item(name: FoundLabel) -> str:
    score = f'<span class="num">{name.score:.2f}</span>'
    return f"<li{_mark(name.is_right)}><span>{escape(name.label)}</span>{score}</li>"


def _mark(is_right: bool) -> str:
    return ' class="right"' if is_right else ""


def _tile(drawing: Drawing) -> str:
    alt = escape(f"{drawing.label}, {drawing.style}")
    return f'<span class="tile"><img src="{webp_uri(drawing.image)}" alt="{alt}" width="72" height="72"></span>'

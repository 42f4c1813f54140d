"""The overview of decisions: a line each by topic, taken from the pages in docs/decisions/."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "decisions"
TOPICS = ("training", "inputs", "bundles", "imports", "runtime", "bulk", "quantization", "measuring")

_INTRODUCTION = """# Decisions

What was decided and why: one line for each decision, by topic. The topic's page has the question, what was measured,
what was rejected and why, and the cost. Failed experiments stay in it.

To add one, write `## Title`, a line `**Choice.** <small>date</small>` and the details into the topic's page, and run
`python -m docs.gen.reference`."""

_ENTRY = re.compile(r"^## (?P<title>.+)\n\n\*\*(?P<choice>.+)\*\* <small>(?P<date>\d{4}-\d\d-\d\d)</small>\n", re.M)


def decisions_page() -> str:
    """Return the page. Raises ValueError for a decision whose line or date is missing."""
    return "\n\n".join([_INTRODUCTION, *(_topic(name) for name in TOPICS)]) + "\n"


def _topic(name: str) -> str:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    found = list(_ENTRY.finditer(text))
    if len(found) != len(re.findall(r"^## ", text, re.M)):
        raise ValueError(f"docs/decisions/{name}.md: a heading is not followed by **Choice.** <small>date</small>")
    title = text.partition("\n")[0].removeprefix("# ")
    lines = [f"- [{each['title']}](decisions/{name}.md#{_slug(each['title'])}). {each['choice']}" for each in found]
    return f"## [{title}](decisions/{name}.md)\n\n" + "\n".join(lines)


def _slug(title: str) -> str:
    """Return the anchor that Python-Markdown gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower())

"""Renders the table of docs/reliability.md from results/*.json, so that no figure there was typed.

python -m benchmarks.reliability report           prints it
python -m benchmarks.reliability report --write   puts it into the document
"""

import msgspec

from benchmarks.harness.markdown import table as markdown
from benchmarks.harness.markdown import with_tables
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import read_result
from benchmarks.reliability.record import RESULTS, Record, Row
from benchmarks.reliability.scores import Mutation, tables

DOCUMENT = ROOT / "docs/reliability.md"

_MUTATION = "mutation"
TRIALS = ("pixels", "pillow_versions", "memory", "large_images", "long_texts", "ranks", _MUTATION)


def results() -> dict[str, Record]:
    """Return every committed result, in the order of the table: trials, then fuzzing, then mutants."""
    names = [*TRIALS[:-1], *sorted(path.stem for path in RESULTS.glob("fuzz_*.json")), _MUTATION]
    paths = {name: RESULTS / f"{name}.json" for name in names}
    return {name: read_result(path, Record) for name, path in paths.items() if path.is_file()}


def table(records: dict[str, Record]) -> str:
    """Return the Markdown of the table and of where its figures come from."""
    head = ("what", "trials", "as expected", "measured")
    found = [markdown(head, [_line(row) for record in records.values() for row in record.rows])]
    if _MUTATION in records:
        found.append(tables(msgspec.json.decode(records[_MUTATION].details, type=Mutation)))
    sources = [_source(name, record) for name, record in records.items()]
    return "\n\n".join([*found, markdown(("result", "command", "machine", "date"), sources)])


def _line(row: Row) -> list[str]:
    good = f"{row.num_good:,}" if row.num_good == row.num_trials else f"**{row.num_good:,}**"
    return [row.what, f"{row.num_trials:,}", good, row.measured]


def _source(name: str, record: Record) -> list[str]:
    card = record.card
    machine = f"{card.cpu}, Python {card.python}, Pillow {card.versions['pillow']}"
    return [f"`{name}.json`", f"`{card.command}`", machine, card.date[:10]]


def run(write: bool = False) -> None:
    rendered = table(results())
    if write:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8"), rendered), encoding="utf-8")
        print(f"{DOCUMENT.name}: table written")
    else:
        print(rendered)

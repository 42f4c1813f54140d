"""What a trial leaves behind: lines for the table of docs/reliability.md, and all that it saw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from benchmarks.harness.environment import Card, card
from benchmarks.harness.results import write_result

RESULTS = Path(__file__).with_name("results")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table: what was done, how often, how often it went as promised, and what was measured."""

    what: str
    num_trials: int
    num_good: int
    measured: str


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of results/NAME.json; `details` are the trial's own."""

    card: Card
    rows: tuple[Row, ...]
    details: msgspec.Raw


Details: TypeAlias = msgspec.Struct | Mapping[str, object]
Found: TypeAlias = tuple[Sequence[Row], Details]


def record(name: str, rows: Sequence[Row], details: Details, *, is_kept: bool = True) -> None:
    """Print the rows and, as the last line, everything in one line of JSON; keep it as results/NAME.json."""
    written = Record(card(), tuple(rows), msgspec.Raw(msgspec.json.encode(details)))
    for row in rows:
        print(f"{row.what}: {row.num_good} of {row.num_trials}; {row.measured}")
    if is_kept:
        write_result(written, RESULTS / f"{name}.json")
    print(msgspec.json.encode(written).decode())

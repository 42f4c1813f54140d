"""What a reliability script leaves behind: a line for the table of docs/reliability.md, and all that it saw."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks.harness.places import ROOT
from benchmarks.harness.results import command_line
from mmalign_runtime.engine.processor import cpu_name

RESULTS = Path(__file__).with_name("results")

_PACKAGES = ("mmalign-runtime", "numpy", "onnxruntime", "pillow")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table: what was done, how often, how often it went as promised, and what was measured."""

    what: str
    num_trials: int
    num_good: int
    measured: str


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Machine, date and command of a measurement."""

    date: str
    command: str
    cpu: str
    platform: str
    python: str
    versions: dict[str, str]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of results/NAME.json; `details` are the script's own."""

    card: Card
    rows: tuple[Row, ...]
    details: msgspec.Raw


def record(
    name: str, rows: Sequence[Row], details: msgspec.Struct | Mapping[str, object], *, is_kept: bool = True
) -> None:
    """Print the rows and, as the last line, everything in one line of JSON; keep it as results/NAME.json."""
    written = Record(_card(), tuple(rows), msgspec.Raw(msgspec.json.encode(details)))
    for row in rows:
        print(f"{row.what}: {row.num_good} of {row.num_trials}; {row.measured}")
    line = msgspec.json.encode(written)
    if is_kept:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(line, indent=2) + b"\n")
    print(line.decode())


def counted(outcomes: Counter[str]) -> str:
    """Return how often each outcome came, the most frequent first."""
    return ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common())


def fell_into(phases: Iterable[str]) -> str:
    """Return how many kills fell into each phase, the one with most first."""
    shown = ", ".join(f"{phase} ({count})" for phase, count in Counter(phases).most_common())
    return f"kills fell into {shown}"


def read_record(path: Path) -> Record:
    """Read results/NAME.json. Raises msgspec.ValidationError when the file is another thing."""
    return msgspec.json.decode(path.read_bytes(), type=Record)


def _card() -> Card:
    return Card(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(f"python {_script()}", sys.argv[1:]),
        cpu=cpu_name(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: version(name) for name in _PACKAGES},
    )


def _script() -> str:
    script = Path(sys.argv[0]).resolve()
    if script.name == "__main__.py":
        return f"-m {'.'.join(script.parent.relative_to(ROOT).parts)}"
    return script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name

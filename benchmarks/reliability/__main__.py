"""Runs one trial, prints what it found and keeps it: python -m benchmarks.reliability TRIAL [--help]

Each trial is a module of this folder with a function `run`: its arguments are the command's options, and it returns the
lines of the table with its details. The exit code is 1 where something was not as expected. `report` puts all figures
into docs/reliability.md.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module

from benchmarks.harness.command import run
from benchmarks.reliability.record import Found, record
from benchmarks.reliability.report import TRIALS

_NAMES = (*TRIALS, "report")
# With other values of these a trial is still a whole one.
_FREE = ("bundle", "seed", "workers")


def main() -> None:
    """Run one of the modules: it alone is imported, since some of them measure the memory of their process."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _NAMES:
        raise SystemExit(f"seen {name!r}, expected one of {', '.join(_NAMES)}")
    script = import_module(f"benchmarks.reliability.{name}").run
    run(script if name == "report" else _recorded(name, script), sys.argv[2:])


def _recorded(name: str, trial: Callable[..., Found]) -> Callable[..., None]:
    @wraps(trial)
    def recorded(**options: object) -> None:
        rows, details = trial(**options)
        record(name, rows, details, is_kept=_is_whole(trial, options))
        raise SystemExit(any(row.num_good < row.num_trials for row in rows))

    return recorded


def _is_whole(trial: Callable[..., Found], options: Mapping[str, object]) -> bool:
    defaults = inspect.signature(trial).parameters
    return all(value == defaults[name].default for name, value in options.items() if name not in _FREE)


if __name__ == "__main__":
    main()

"""Makes one kind of fault, counts what comes of it, and keeps the figures:
python -m benchmarks.reliability FAULT [--help]

Each fault is a module of this folder with a function `run`, whose arguments are the command's options. `report` puts
all figures into docs/reliability.md.
"""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from benchmarks.reliability.report import FAULTS

_NAMES = (*FAULTS, "mutation", "report")


def main() -> None:
    """Run one of the modules: it alone is imported, since some of them measure the memory of their process."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _NAMES:
        raise SystemExit(f"seen {name!r}, expected one of {', '.join(_NAMES)}")
    module = import_module(f"benchmarks.reliability.{name}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=module.__doc__)(module.run)
    app(sys.argv[2:], prog_name=f"python -m benchmarks.reliability {name}")


if __name__ == "__main__":
    main()

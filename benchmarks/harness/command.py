"""A script as a command: its function's arguments are the options, its module's docstring is the help."""

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from benchmarks.harness.places import ROOT


def run(script: Callable[..., object], arguments: list[str] | None = None) -> None:
    """Run a script's function with the options given, then end. Raises SystemExit, with 0 where it returned."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help=sys.modules[script.__module__].__doc__)(script)
    app(arguments)


def command_line() -> str:
    """Return the command that this process was started with, without the folders of the machine."""
    spec, path = sys.modules["__main__"].__spec__, Path(sys.argv[0]).resolve()
    if spec is not None:
        script = f"-m {spec.name.removesuffix('.__main__')}"
    else:
        script = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    shown = (Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv[1:])
    return " ".join(["python", script, *shown])

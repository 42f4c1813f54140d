"""What both ways to bench do with their words: progress on stderr, then a report as tables, as JSON, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer

from mmalign_runtime.atomic import replacing

STDOUT = "-"

Report = TypeVar("Report")


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is measured next: in one line that moves on a terminal, a line each elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: console.print(what, highlight=False, soft_wrap=True)
        return
    with console.status("loading") as status:
        yield status.update


def write_report(report: Report, json: str | None, print_report: Callable[[Report], None]) -> None:
    """Print the report, write it as JSON to a file as well, or print nothing but JSON for "-"."""
    import msgspec

    line = msgspec.json.encode(report).decode()
    if json == STDOUT:
        typer.echo(line)
        return
    print_report(report)
    if json is not None:
        with replacing(Path(json)) as temporary:
            temporary.write_text(line + "\n", encoding="utf-8")

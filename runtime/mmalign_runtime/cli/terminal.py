"""What the command line prints reaches every terminal and pipe, whatever names hold and whatever the encoding is."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmalign_runtime.names import printable

if TYPE_CHECKING:
    from rich.table import Table


def escape_what_does_not_fit() -> None:
    """Let stdout and stderr write a character that their encoding lacks as an escape, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str, *, err: bool = False) -> None:
    """Print one line, its control characters escaped: a name of a file must not move the cursor or forge a line."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def new_table(*columns: str, title: str, numbers: Sequence[str] = ()) -> Table:
    """Return a table, the columns that are `numbers` to the right; without columns it has no header."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=bool(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def cell(text: str) -> str:
    """Return text as a table shows it as it is: its control characters escaped, and what rich would take for markup."""
    from rich.markup import escape

    return escape(printable(text))


def discard_what_is_left() -> None:
    """Let go of what stdout and stderr could not write, which Python would try once more, and complain, at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):  # a stream of somebody else's has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

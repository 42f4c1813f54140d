"""What the command line prints reaches every terminal and pipe, whatever names hold and whatever the encoding is."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from mmalign_runtime.names import printable


def escape_what_does_not_fit() -> None:
    """Let stdout and stderr write a character that their encoding lacks as an escape, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str, *, err: bool = False) -> None:
    """Print one line, its control characters escaped: a name of a file must not move the cursor or forge a line."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


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

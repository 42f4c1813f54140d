"""What `mmalign embed` was asked for, and its input."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.bulk.entries import Source
    from mmalign_runtime.bulk.job import Job


class Request(msgspec.Struct, frozen=True):
    """What was asked for on the command line; `again` is the command that goes on with it."""

    source: str
    out: Path
    column: str | None
    id_column: str | None
    resume: bool
    force: bool
    again: str


def resume_command(context: typer.Context) -> str:
    """Return the command that goes on with this one: the same words, with --resume instead of --force."""
    words = ["mmalign", "embed"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif parameter.name not in ("resume", "force") and value not in (None, parameter.default):
            names = parameter.secondary_opts if value is False else parameter.opts
            words += names[:1] if isinstance(value, bool) else [names[0], str(value)]
    return shlex.join([*words, "--resume"])


def open_input(request: Request, job: Job) -> Source:
    """Open what is to be embedded. Raises InputError when it cannot be read or is empty."""
    from mmalign_runtime.bulk.sources import open_source

    source = open_source(request.source, job.kind, column=request.column, id_column=request.id_column)
    if not len(source):
        raise InputError(f"{request.source} has no rows, expected at least one. Check the table.")
    return source

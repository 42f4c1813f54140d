"""Verbs that other distributions add to the command line, and what to install for those that are not here.

A distribution adds its verbs with an entry point of the group "mmalign.verbs", named after itself, that is a function
`register(app: typer.Typer) -> None`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated
from weakref import WeakKeyDictionary

import msgspec
import typer

from mmalign_runtime.errors import MissingDependencyError

ENTRY_POINT_GROUP = "mmalign.verbs"
# Whose verbs each command line has: `main` may be called many times in a process.
_loaded: WeakKeyDictionary[typer.Typer, set[EntryPoint]] = WeakKeyDictionary()


class Elsewhere(msgspec.Struct, frozen=True):
    """A verb that the runtime does not have: what it does, and the distribution that brings it."""

    verb: str
    summary: str
    distribution: str


ELSEWHERE = (
    Elsewhere("train", "Train a dual encoder on pairs of images and texts.", "mmalign"),
    Elsewhere("evaluate", "Measure the retrieval of a training run.", "mmalign"),
    Elsewhere("export", "Export a training run to a bundle.", "mmalign-export"),
    Elsewhere("import", "Import a model of another library as a bundle.", "mmalign-export"),
    Elsewhere("quantize", "Add eight-bit towers to a bundle.", "mmalign-export"),
)

_FROM_A_CLONE = {"mmalign": "pip install '.[cpu]'", "mmalign-export": "pip install '.[cpu]' './export[cpu]'"}


def load_verbs(app: typer.Typer, found: Iterable[EntryPoint] | None = None) -> None:
    """Add the verbs of the installed distributions (or of `found`), and stand-ins that name the install of the rest.

    A distribution that is installed and cannot be imported costs its own verbs alone: called, they say why. What was
    added to this command line before is not added again.
    """
    broken: dict[str, ImportError] = {}
    loaded = _loaded.setdefault(app, set())
    for entry_point in entry_points(group=ENTRY_POINT_GROUP) if found is None else found:
        if entry_point in loaded:
            continue
        try:
            register: Callable[[typer.Typer], None] = entry_point.load()
        except ImportError as error:
            broken[entry_point.name] = error
        else:
            register(app)
            loaded.add(entry_point)
    present = _names(app)
    for verb in ELSEWHERE:
        if verb.verb not in present:
            _add_stand_in(app, verb, broken.get(verb.distribution))


def _names(app: typer.Typer) -> set[str]:
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return commands | {group.name for group in app.registered_groups if group.name}


def _add_stand_in(app: typer.Typer, verb: Elsewhere, cause: ImportError | None) -> None:
    install = f"pip install '{verb.distribution}[cpu]', or from a clone {_FROM_A_CLONE[verb.distribution]}"
    message = f"mmalign {verb.verb} needs the {verb.distribution} distribution: {install}"
    if cause is not None:
        message = f"mmalign {verb.verb} needs {verb.distribution}, which does not load ({cause}). Repair it: {install}"

    def stand_in(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise MissingDependencyError(message) from cause

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    app.command(verb.verb, help=f"{verb.summary} Needs {verb.distribution}.", context_settings=settings)(stand_in)

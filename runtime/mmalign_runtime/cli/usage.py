"""What typer refuses of a command line, as one line like every other error: the word, why, and where the help is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from mmalign_runtime.cli.empty_paths import shown_name
from mmalign_runtime.errors import InputError

# A missing argument, an unknown option or verb, a value that does not fit: typer gives their class no public name.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
# What pydantic, which reads the values, puts before the words of typer's own checks.
_PREFIX = "Value error, "


def refusal(error: Any, command: Any, words: Sequence[str]) -> InputError:  # noqa: ANN401  typer's, not exported
    """Return the error of a command line of these words, which typer refused."""
    verb = command.commands.get(words[0])
    parameter = getattr(error, "param", None)
    if parameter is None:
        reason = error.format_message()
    elif not error.message:
        reason = f"{shown_name(parameter)} is missing"
    else:
        reason = f"{shown_name(parameter)}{_seen(error)}: {_lower(error.message.removeprefix(_PREFIX))}"
    place = "mmalign" if verb is None else f"mmalign {words[0]}"
    end = "" if reason.endswith(("?", ".")) else "."
    return InputError(f"{_lower(reason)}{end} See `{place} --help`.")


def _seen(error: Any) -> str:  # noqa: ANN401  as above
    """Return the word that the message is about: of an option given several times, that one alone."""
    found = error.__cause__  # pydantic's, whose first fault is the message
    return f" {found.errors()[0]['input']!r}" if hasattr(found, "errors") else ""


def _lower(sentence: str) -> str:
    """Return a sentence as it stands behind a colon."""
    return f"{sentence[:1].lower()}{sentence[1:]}" if sentence[1:2].islower() else sentence

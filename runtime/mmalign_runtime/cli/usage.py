"""What typer refuses of a command line, as one line like every other error: the word, why, and where the help is.

And an empty path, as an unset variable of the shell is: `Path("")` would be the working directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from mmalign_runtime.errors import InputError

# A missing argument, an unknown option or verb, a value that does not fit: typer gives their class no public name.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
# What pydantic, which reads the values, puts before the words of typer's own checks.
_PREFIX = "Value error, "

# Paths that are texts, since they may be names of the hub or patterns as well.
_PATHS_AS_TEXTS = frozenset({"source", "pairs", "evaluation", "calibration"})


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


def refuse_empty_paths(command: Any, args: Sequence[str]) -> None:  # noqa: ANN401  the library's, which it does not export
    """Raise InputError for an empty path among the words of a verb; other empty words are left to it."""
    if not args or args[0] not in command.commands:
        return
    for parameter, word in _given(command.commands[args[0]].params, args[1:]):
        if not word and (parameter.type_descriptor.annotation is Path or parameter.name in _PATHS_AS_TEXTS):
            raise InputError(f"{shown_name(parameter)} is empty, as an unset variable of the shell is. Give a path.")


def shown_name(parameter: Any) -> str:  # noqa: ANN401  as above
    """Return what a user knows a parameter of a verb by: an option's word, an argument's name in its usage."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())


def _given(parameters: Sequence[Any], words: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Yield what is given for each parameter, as far as the words can be told apart."""
    options = {name: each for each in parameters if each.param_type_name == "option" for name in each.opts}
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    left = iter(words)
    for word in left:
        name, has_value, value = word.partition("=")
        if not name.startswith("--"):
            if arguments:
                yield arguments[0], word
                arguments = arguments[1:] if arguments[0].nargs == 1 else arguments
        elif name in options and not options[name].is_flag:
            yield options[name], value if has_value else next(left, " ")

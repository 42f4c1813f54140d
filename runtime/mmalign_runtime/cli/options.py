"""Options shared by the verbs, and their words turned into the names the runtime knows, or a clear refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias, cast, get_args

import typer

from mmalign_runtime.errors import InputError
from mmalign_runtime.spec import Modality

BundleArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="The bundle: a folder, or a .mmalign file.", show_default=False)
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def as_modality(word: str) -> Modality:
    """Return the modality of that name. Raises InputError naming the choices."""
    return cast("Modality", one_of(word, get_args(Modality), "--kind"))


def as_towers(words: str) -> tuple[Modality, ...]:
    """Return the towers of those names, which commas part. Raises InputError naming the choices."""
    towers = (one_of(word.strip(), get_args(Modality), "--towers") for word in words.split(","))
    return cast("tuple[Modality, ...]", tuple(dict.fromkeys(towers)))


def one_of(word: str, choices: tuple[str, ...], option: str) -> str:
    """Return the word. Raises InputError naming the choices when it is none of them."""
    if word not in choices:
        raise InputError(f"{option} {word!r} is not known; choose one of {', '.join(choices)}.")
    return word

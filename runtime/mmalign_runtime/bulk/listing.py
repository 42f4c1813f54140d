"""Files below a folder, or those a pattern names, in order and one at a time: only the open folders' names are held.

The order is that of sorted paths: by the names along the way, so a folder stands among the files beside it. A `prefix`
is a folder's path with the slash behind it, or "" for the working folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from mmalign_runtime.errors import InputError
from mmalign_runtime.names import printable

_WILDCARDS = frozenset("*?[")
_ANY_DEPTH = "**"


def is_pattern(text: str) -> bool:
    """Say whether `text` holds a wildcard."""
    return not _WILDCARDS.isdisjoint(text)


class LeftOut:
    """What one listing for embedding leaves out: hidden names, and links to folders that it has read or will read.

    Hidden are names that begin with a dot, such as macOS's `._dog.jpg`, which is not a picture, and `.cache`.
    """

    def __init__(self) -> None:
        self._counts = {"hidden": 0, "linked": 0}
        self._first: dict[str, str] = {}
        self._read: list[str] = []  # the folders that were walked or linked to, by their real paths

    def note(self, why: Literal["hidden", "linked"], path: str) -> None:
        """Count one name."""
        self._counts[why] += 1
        self._first.setdefault(why, path)

    def enter(self, folder: str) -> bool:
        """Take note that a folder is read with all below it. False where it is read already, or holds what is."""
        real = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 with a slash behind it
        if any(real.startswith(read) or read.startswith(real) for read in self._read):
            return False
        self._read.append(real)
        return True

    def remarks(self) -> tuple[str, ...]:
        """Return a line for each kind that was met: how many, and the first."""
        words = {
            "hidden": ("hidden files or folders left out", "; name them in a pattern to embed them"),
            "linked": ("links to folders that are read anyway, or lead in a circle, left out", ""),
        }
        return tuple(
            f"{words[why][0]}: {count:,} (the first: {printable(self._first[why])}){words[why][1]}"
            for why, count in self._counts.items()
            if count
        )


def walk(prefix: str, left_out: LeftOut | None = None) -> Iterator[str]:
    """Yield the path of every file below a folder; links to folders are not followed.

    With `left_out`, hidden names are not entered or given, and noted there; links to folders are followed, but for
    those to a folder that is read anyway. Raises InputError naming the folder that cannot be read: a listing with a
    hole in it would pass for a whole one.
    """
    if left_out is not None:
        left_out.enter(prefix or ".")
    yield from _below(prefix, left_out)


def _below(prefix: str, left_out: LeftOut | None) -> Iterator[str]:
    for name, is_folder, is_link in _names(prefix):
        path = prefix + name
        if left_out is not None and name.startswith("."):
            left_out.note("hidden", path)
        elif not is_folder:
            yield path
        elif not is_link or (left_out is not None and left_out.enter(path)):
            yield from _below(f"{path}/", left_out)
        elif left_out is not None:
            left_out.note("linked", path)


def matching(pattern: Path, left_out: LeftOut | None = None) -> Iterator[str]:
    """Yield the path of every file that the pattern names, with `*`, `?`, `[...]` and `**`. Raises as `walk` does.

    With `left_out`, a wildcard does not stand for the dot that hidden names begin with, as in shells, and what is left
    out for that is noted there. `**` follows links to folders as `walk` does, other steps follow all of them.
    """
    return _match(pattern.anchor, pattern.relative_to(pattern.anchor).parts, left_out)


def _match(prefix: str, steps: Sequence[str], left_out: LeftOut | None) -> Iterator[str]:
    step, rest = steps[0], steps[1:]
    if step == _ANY_DEPTH:
        yield from _any_depth(prefix, steps, left_out)
        return
    for name, is_folder in _step(prefix, step, left_out):
        if is_folder and rest:
            yield from _match(f"{prefix}{name}/", rest, left_out)
        elif not is_folder and not rest:
            yield prefix + name


def _any_depth(prefix: str, steps: Sequence[str], left_out: LeftOut | None) -> Iterator[str]:
    # A later step that begins with a dot names what is hidden: then all is walked, and held to the pattern.
    is_explicit = left_out is not None and any(step.startswith(".") for step in steps)
    for path in walk(prefix, None if is_explicit else left_out):
        names = path.removeprefix(prefix).split("/")
        if _fits(names, steps, shows_hidden=left_out is None):
            yield path


def _step(prefix: str, step: str, left_out: LeftOut | None) -> Iterator[tuple[str, bool]]:
    if is_pattern(step):
        found = [(name, is_folder) for name, is_folder, _ in _names(prefix) if fnmatchcase(name, step)]
        for name, is_folder in found:
            if left_out is not None and _hides(name, step):
                left_out.note("hidden", prefix + name)
            else:
                yield name, is_folder
    elif (path := Path(prefix + step)).exists():
        yield step, path.is_dir()


def _hides(name: str, step: str) -> bool:
    return name.startswith(".") and not step.startswith(".")


def _fits(names: Sequence[str], steps: Sequence[str], *, shows_hidden: bool) -> bool:
    if not steps or not names:
        return not names and all(step == _ANY_DEPTH for step in steps)
    if not shows_hidden and _hides(names[0], steps[0]):
        return steps[0] == _ANY_DEPTH and _fits(names, steps[1:], shows_hidden=shows_hidden)
    if steps[0] == _ANY_DEPTH:
        later = _fits(names, steps[1:], shows_hidden=shows_hidden)
        return later or _fits(names[1:], steps, shows_hidden=shows_hidden)
    return fnmatchcase(names[0], steps[0]) and _fits(names[1:], steps[1:], shows_hidden=shows_hidden)


def _names(prefix: str) -> list[tuple[str, bool, bool]]:
    folder = Path(prefix or ".")
    with readable(folder), os.scandir(folder) as entries:
        return sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself: whoever opens it fails, that item alone
        return False


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says of `path` inside the block into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check its permissions.") from error

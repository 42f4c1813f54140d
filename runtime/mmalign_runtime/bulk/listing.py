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

from mmalign_runtime.errors import InputError

_WILDCARDS = frozenset("*?[")
_ANY_DEPTH = "**"


def is_pattern(text: str) -> bool:
    """Say whether `text` holds a wildcard."""
    return not _WILDCARDS.isdisjoint(text)


def walk(prefix: str) -> Iterator[str]:
    """Yield the path of every file below a folder; links to folders are not followed.

    Raises InputError naming the folder that cannot be read: a listing with a hole in it would pass for a whole one.
    """
    for name, is_folder, is_link in _names(prefix):
        if not is_folder:
            yield prefix + name
        elif not is_link:
            yield from walk(f"{prefix}{name}/")


def matching(pattern: Path) -> Iterator[str]:
    """Yield the path of every file that the pattern names, with `*`, `?`, `[...]` and `**`. Raises as `walk` does."""
    return _match(pattern.anchor, pattern.relative_to(pattern.anchor).parts)


def _match(prefix: str, steps: Sequence[str]) -> Iterator[str]:
    step, rest = steps[0], steps[1:]
    if step == _ANY_DEPTH:
        yield from (path for path in walk(prefix) if _fits(path.removeprefix(prefix).split("/"), steps))
        return
    for name, is_folder in _step(prefix, step):
        if is_folder and rest:
            yield from _match(f"{prefix}{name}/", rest)
        elif not is_folder and not rest:
            yield prefix + name


def _step(prefix: str, step: str) -> Iterator[tuple[str, bool]]:
    if is_pattern(step):
        yield from ((name, is_folder) for name, is_folder, _ in _names(prefix) if fnmatchcase(name, step))
    elif (path := Path(prefix + step)).exists():
        yield step, path.is_dir()


def _fits(names: Sequence[str], steps: Sequence[str]) -> bool:
    if not steps or not names:
        return not names and all(step == _ANY_DEPTH for step in steps)
    if steps[0] == _ANY_DEPTH:
        return _fits(names, steps[1:]) or _fits(names[1:], steps)
    return fnmatchcase(names[0], steps[0]) and _fits(names[1:], steps[1:])


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

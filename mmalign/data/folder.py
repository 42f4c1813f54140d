"""Folders of images, nested or not, each image with a .txt of the same name that has one caption a line.

What is left out (hidden names, other files, links that lead back) is counted and logged once a folder.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmalign.data.cells import Cells
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import FORMAT_OF_SUFFIX, DataSource
from mmalign.data.text import LINE_END, describe, to_utf8
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

CAPTION_SUFFIX = ".txt"


def read_folder(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield one row an image below `path`, in sorted order; hidden files and folders are left out.

    Links to folders are followed, each folder once, so that links may lead in a circle. Raises `OSError`.
    """
    left_out: Counter[str] = Counter()
    tables: dict[Path, str] = {}  # in a folder or the nearest above it: a file of captions that may have been meant
    for folder, names in _walk(path, left_out):
        tables[folder] = next(filter(_is_table, names), tables.get(folder.parent, ""))
        yield from _rows(folder, names, tables[folder], left_out)
    if left_out:
        counts = ", ".join(f"{count} {what}" for what, count in left_out.most_common())
        logger.info("%s: left out %s", path, counts)


def _walk(path: Path, left_out: Counter[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files, both sorted and without hidden ones."""
    seen = {_identity(path)}
    for folder, subfolders, names in os.walk(path, onerror=_raise, followlinks=True):
        subfolders[:] = sorted(_visible(subfolders, "hidden folders", left_out))
        for name in list(subfolders):
            identity = _identity(Path(folder) / name)
            if identity in seen:
                subfolders.remove(name)
                left_out["links to folders read already"] += 1
            seen.add(identity)
        yield Path(folder), sorted(_visible(names, "hidden files", left_out))


def _visible(names: list[str], what: str, left_out: Counter[str]) -> list[str]:
    visible = [name for name in names if not name.startswith(".")]
    if len(visible) < len(names):
        left_out[what] += len(names) - len(visible)
    return visible


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _raise(error: OSError) -> None:
    raise error  # os.walk alone would leave out a folder that it cannot list


def _rows(folder: Path, names: list[str], table: str, left_out: Counter[str]) -> Iterator[Cells | RejectedRow]:
    images = [name for name in names if _suffix(name) in IMAGE_SUFFIXES]
    texts: dict[str, str] = {}
    for name in (name for name in names if _suffix(name) == CAPTION_SUFFIX):
        if texts.setdefault(Path(name).stem, name) != name:
            reason = f"{texts[Path(name).stem]} has its name already; expected one text an image"
            yield RejectedRow(Origin(folder / name), reason)
    for name in images:
        yield _row(folder / name, texts.get(Path(name).stem), table)
    for stem in sorted(texts.keys() - {Path(name).stem for name in images}):
        yield RejectedRow(Origin(folder / texts[stem]), "no image of this name; expected one beside the text")
    for name in names:
        if _suffix(name) not in IMAGE_SUFFIXES | {CAPTION_SUFFIX}:
            is_broken = not (folder / name).exists()
            left_out["broken links" if is_broken else f"files ending in {_suffix(name)!r}"] += 1


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _is_table(name: str) -> bool:
    return FORMAT_OF_SUFFIX.get(_suffix(name)) in ("csv", "tsv", "jsonl", "parquet")


def _row(image_path: Path, text_name: str | None, table: str) -> Cells | RejectedRow:
    origin = Origin(image_path)
    if text_name is None:
        hint = f". If {table} has the captions, give it as path, and the column of its file names" if table else ""
        return RejectedRow(origin, f"no captions; expected {image_path.stem}{CAPTION_SUFFIX} beside it{hint}")
    try:
        content = image_path.with_name(text_name).read_bytes()
    except OSError as error:
        return RejectedRow(origin, f"captions in {text_name} cannot be read ({error.strerror}); expected a text file")
    text = decode_captions(origin, content)
    return text if isinstance(text, RejectedRow) else Cells(origin, image_path.name, tuple(LINE_END.split(text)))


def decode_captions(origin: Origin, content: bytes) -> str | RejectedRow:
    """Return the text of a caption file, or say why it has none."""
    try:
        return to_utf8(content).decode()
    except UnicodeDecodeError as error:
        return RejectedRow(origin, f"captions are {describe(error)}; expected UTF-8 text")

"""From the untyped cells of one row to a pair: the rules that all formats share.

Formats differ in where the cells lie. What a cell may hold, and what is said of one that holds something
else, is decided here.
"""

import os
import reprlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from mmalign.data.identity import hash_image, path_identity
from mmalign.data.pair import Origin, Pair, RejectedRow
from mmalign.data.source import SourceFiles

SHOWN_CHARACTERS = 80  # of a cell that an error quotes: enough to search for, short enough for one line

HashImage = Callable[[Path | bytes], str]

_quote = reprlib.Repr()
_quote.maxstring = _quote.maxother = SHOWN_CHARACTERS


class Cells(msgspec.Struct, frozen=True):
    """The cells of one row, as the file holds them.

    `image`: path text, encoded bytes, or the {bytes, path} of Hugging Face datasets. `captions`: one cell a
    caption column, each a text or a list of texts. `concept`, `group`: text or a whole number.
    """

    origin: Origin
    image: object
    captions: tuple[object, ...]
    concept: object = None
    group: object = None


class _BadCellError(Exception):
    """Why a row is rejected; never leaves this module."""


def to_pair(cells: Cells, files: SourceFiles, hash_of: HashImage = hash_image) -> Pair | RejectedRow:
    """Build the pair of a row, or say why there is none. `hash_of` hashes an image; it may remember files."""
    try:
        return _build_pair(cells, files, hash_of)
    except _BadCellError as bad:
        return RejectedRow(cells.origin, str(bad))


def _build_pair(cells: Cells, files: SourceFiles, hash_of: HashImage) -> Pair:
    source = files.source
    image_dir = Path(source.image_root) if source.image_root is not None else cells.origin.source_path.parent
    image = _image(cells.image, image_dir)
    if source.check_images and isinstance(image, Path):
        _check_image_file(image, image_dir)
    captions = tuple(caption for cell in cells.captions for caption in _captions(cell))
    if not captions:
        raise _BadCellError("no caption: every caption is null or blank; expected one or more texts")
    concept, group = _label(cells.concept, "concept"), _label(cells.group, "group")
    if concept is None and source.concept_column is not None:
        raise _BadCellError(f"no concept: {source.concept_column!r} is null or blank; expected text or a whole number")
    image_id = _identity(image, source.check_images, hash_of)
    return Pair(image, captions, concept or image_id, cells.origin, group, image_id)


def _image(cell: object, image_dir: Path) -> Path | bytes:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "" or cell == b"":
        raise _BadCellError("no image: the image cell is null or empty; expected a path or encoded bytes")
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, str):
        return image_dir / cell
    raise _BadCellError(f"image is {_shown(cell)}; expected a path, encoded bytes, or a struct of both")


def _check_image_file(image: Path, image_dir: Path) -> None:
    # Path.is_file would raise for a text too long to be a path, such as a caption in the wrong column.
    if not os.path.isfile(image):  # noqa: PTH113
        raise _BadCellError(
            f"no image file at {_quote.repr(str(image))}; expected a path relative to {image_dir}. "
            "Set image_root if the images lie elsewhere"
        )


def _captions(cell: object) -> list[str]:
    """Return the texts of a cell. Null and blank ones add nothing: a row may fill some columns only."""
    texts = []
    for item in cell if isinstance(cell, list | tuple) else [cell]:
        if not isinstance(item, str | None):
            raise _BadCellError(f"caption is {_shown(item)}; expected a text or a list of texts")
        if item is not None and item.strip():
            texts.append(item.strip())
    return texts


def _label(cell: object, name: str) -> str | None:
    if isinstance(cell, bool) or not isinstance(cell, str | int | None):
        raise _BadCellError(f"{name} is {_shown(cell)}; expected text or a whole number")
    return None if cell is None else str(cell).strip() or None


def _identity(image: Path | bytes, is_read: bool, hash_of: HashImage) -> str:
    if isinstance(image, Path) and not is_read:
        return path_identity(image)
    try:
        return hash_of(image)
    except OSError as error:
        reason = f"the image file {_quote.repr(str(image))} cannot be read: {error.strerror or error}"
        raise _BadCellError(f"{reason}; expected a readable file") from error


def _shown(cell: object) -> str:
    return f"{_quote.repr(cell)} ({type(cell).__name__})"

"""From the untyped cells of one row to a pair: the rules that all formats share.

Formats differ in where the cells lie. What a cell may hold, and what is said of one that holds something
else, is decided here.
"""

import os
import reprlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec

from mmalign.data.identity import hash_image, path_identity
from mmalign.data.image_names import UTF16_UNMARKED, named_in_bytes, why_no_path
from mmalign.data.pair import Origin, Pair, RejectedRow
from mmalign.data.source import SourceFiles

SHOWN_CHARACTERS = 80  # of a cell that an error quotes: enough to search for, short enough for one line
LARGEST_WHOLE = 2**53  # above it a float no longer tells neighbouring whole numbers apart

HashImage = Callable[[Path | bytes], str]

_quote = reprlib.Repr()
_quote.maxstring = _quote.maxother = SHOWN_CHARACTERS


class Cells(msgspec.Struct, frozen=True):
    """The cells of one row, as the file holds them.

    `image`: path text, encoded bytes, or the {bytes, path} of Hugging Face datasets. `captions`: one cell a
    caption column, each a text or a list of texts. `concept`, `group`: text or a whole number. `languages`: one for
    each cell of captions, none where the source names none.
    """

    origin: Origin
    image: object
    captions: tuple[object, ...]
    concept: object = None
    group: object = None
    languages: tuple[str, ...] = ()


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
    by_cell = [_captions(cell) for cell in cells.captions]
    captions = tuple(caption for texts in by_cell for caption in texts)
    named = zip(cells.languages, by_cell, strict=True) if cells.languages else ()
    languages = tuple((language, caption) for language, texts in named for caption in texts)
    if not captions:
        raise _BadCellError("no caption: every caption is null or blank; expected one or more texts")
    concept, group = _label(cells.concept, "concept"), _label(cells.group, "group")
    if concept is None and source.concept_column is not None:
        raise _BadCellError(f"no concept: {source.concept_column!r} is null or blank; expected text or a whole number")
    image_id = _identity(image, source.check_images, hash_of)
    return Pair(image, captions, concept or image_id, cells.origin, group, image_id, languages)


def _image(cell: object, image_dir: Path) -> Path | bytes:
    if isinstance(cell, dict) and (not cell or cell.keys() & {"bytes", "path"}):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and (name := named_in_bytes(cell)) is not None:
        cell = name
    if cell is None or cell == b"" or (isinstance(cell, str) and not cell.strip()):
        raise _BadCellError("no image: the image cell is null or empty; expected a path or encoded bytes")
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, str):
        if (wrong := why_no_path(cell)) is not None:
            raise _BadCellError(f"image is {_quote.repr(cell)}: {wrong}")
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
    for item in map(_as_text, cell if isinstance(cell, list | tuple) else [cell]):
        if isinstance(item, str) and "\0" in item:
            raise _BadCellError(f"caption {_quote.repr(item)} holds NUL characters; expected text. {UTF16_UNMARKED}")
        if not isinstance(item, str | None):
            raise _BadCellError(f"caption is {_shown(item)}; expected a text or a list of texts")
        if item is not None and item.strip():
            texts.append(item.strip())
    return texts


def _as_text(cell: object) -> object:
    """Return the text of a binary cell, as Parquet files have them whose writer knew no texts; others as they are."""
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise _BadCellError(f"binary cell {_quote.repr(cell)} is not UTF-8 ({error}); expected text") from error


def _as_whole(cell: object) -> object:
    """Return 7.0 as 7: pandas makes floats of whole numbers in a column with nulls."""
    if isinstance(cell, float | Decimal) and -LARGEST_WHOLE <= cell <= LARGEST_WHOLE and cell == int(cell):
        return int(cell)
    return cell


def _label(cell: object, name: str) -> str | None:
    if not isinstance(cell, str | None):
        cell = _as_whole(_as_text(cell))
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

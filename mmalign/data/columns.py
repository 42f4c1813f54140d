"""Columns by name: which of them the settings want, which the source has, and the cells they give.

A missing cell is a fault of one row; a missing column is a fault of the settings and always an error.
"""

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.errors import ColumnError, SourceFormatError
from mmalign.data.image_names import DOWNLOAD
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource

# JSON rows may leave optional fields out, so a name counts as wrong only when none of the first rows has it.
HEAD_RECORDS = 32

# What public data sets call these columns, in small letters, most telling first: image folders of Hugging Face
# (`file_name`, `text`), img2dataset (`jpg`, `caption`), Flickr30k (`image_name`, `comment`), LAION (`URL`, `TEXT`).
_USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "image_column": (
        "file_name", "filename", "image_name", "image_path", "image_file", "filepath", "file_path", "img", "jpg",
        "png", "image", "images", "file", "path",
    ),
    "caption_columns": (
        "caption", "captions", "text", "texts", "comment", "title", "sentence", "sentences", "raw", "description",
        "alt_text", "prompt",
    ),
}  # fmt: skip
_ADDRESS_NAMES = ("url", "urls", "image_url", "img_url", "link", "uri")


class Record(msgspec.Struct, frozen=True):
    """A row whose cells have names.

    `image` and `captions` are set where the format, not a column, gives them: the members of a shard.
    """

    origin: Origin
    values: dict[str, object]
    image: bytes | None = None
    captions: tuple[str, ...] = ()


def cells_of(source: DataSource, record: Record) -> Cells:
    """Pick the configured columns of a record; an absent one is a null cell."""
    values = record.values
    return Cells(
        record.origin,
        image=record.image if record.image is not None else values.get(source.image_column),
        captions=record.captions or tuple(values.get(name) for _, name in source.columns_of_captions()),
        concept=None if source.concept_column is None else values.get(source.concept_column),
        group=None if source.group_column is None else values.get(source.group_column),
        languages=() if record.captions else source.languages(),
    )


def wanted_columns(source: DataSource) -> dict[str, str]:
    """Return the columns that `source` names, each with the setting that names it."""
    wanted = {source.image_column: "image_column"}
    wanted |= dict.fromkeys((name for _, name in source.columns_of_captions()), "caption_columns")
    if source.concept_column is not None:
        wanted[source.concept_column] = "concept_column"
    if source.group_column is not None:
        wanted[source.group_column] = "group_column"
    return wanted


def check_columns(path: Path, present: Sequence[str], wanted: dict[str, str]) -> None:
    """Raise `ColumnError` if a wanted column is not present, `SourceFormatError` if it is there twice."""
    for name, setting in wanted.items():
        if name not in present:
            raise ColumnError(_missing(path, present, name, setting))
        if present.count(name) > 1:
            raise SourceFormatError(
                f"{path} has {present.count(name)} columns named {name!r}; expected one. Rename them"
            )


def _missing(path: Path, present: Sequence[str], name: str, setting: str) -> str:
    listed = ", ".join(map(repr, present)) or "none"
    return (
        f"{path} has no column {name!r}, which {setting} asks for. Columns present: {listed}; "
        f"{_advise(present, name, setting)}"
    )


def _advise(present: Sequence[str], name: str, setting: str) -> str:
    by_key = {other.strip().casefold(): other for other in reversed(present)}
    usual = next((by_key[key] for key in _USUAL_NAMES.get(setting, ()) if key in by_key), None)
    if usual is not None and name.casefold() not in by_key:
        value = [usual] if setting == "caption_columns" else usual
        return f"the nearest is {usual!r}; set {setting} = {json.dumps(value, ensure_ascii=False)}"
    addresses = next((by_key[key] for key in _ADDRESS_NAMES if key in by_key), None)
    if setting == "image_column" and addresses is not None and name.casefold() not in by_key:
        return (
            f"{addresses!r} is a usual name for URLs, and nothing is fetched here. {DOWNLOAD}; "
            'if the images lie beside this file already, set format = "folder" or give a pattern for their shards'
        )
    nearest = difflib.get_close_matches(name, present, n=1, cutoff=0.0)
    return f"the nearest is {nearest[0]!r}; set {setting}" if nearest else f"change {setting}"


def check_first_records(
    source: DataSource, path: Path, records: Iterable[Record | RejectedRow]
) -> Iterator[Record | RejectedRow]:
    """Pass `records` through, after a look at the names that the first of them have.

    For formats whose rows each bring their own names. Raises `ColumnError`.
    """
    rest = iter(records)
    first = list(itertools.islice(rest, HEAD_RECORDS))
    seen = [record for record in first if isinstance(record, Record)]
    if seen:
        present = dict.fromkeys(name for record in seen for name in record.values)
        check_columns(path, list(present), _wanted_of_records(source, seen))
    return itertools.chain(first, rest)


def _wanted_of_records(source: DataSource, seen: list[Record]) -> dict[str, str]:
    given = {"image_column"} if any(record.image is not None for record in seen) else set()
    given |= {"caption_columns"} if any(record.captions for record in seen) else set()
    return {name: setting for name, setting in wanted_columns(source).items() if setting not in given}

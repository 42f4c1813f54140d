"""WebDataset shards: .tar files in which the members of one key, `0001.jpg` and `0001.txt`, make a sample.

The .txt member is one caption, whatever line breaks it has; without one, the caption columns of the .json member are
the captions. Where both are there the text wins: img2dataset writes one caption into both.

Read with `tarfile` and not with the `webdataset` library: that one builds training pipelines, and takes two
accidents for data. It ends a shard that was cut short between members without a word, and makes two samples
of one whose members lie apart.
"""

import logging
import posixpath
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_first_records
from mmalign.data.errors import SourceFormatError
from mmalign.data.folder import CAPTION_SUFFIX, decode_captions
from mmalign.data.jsonl import parse_object
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource
from mmalign.data.text import describe, to_utf8
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

FIELDS_SUFFIX = ".json"
_PIECE_BYTES = 1 << 20


class _Member(msgspec.Struct, frozen=True):
    key: str
    suffix: str
    content: bytes


def read_webdataset(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield one row a sample. Raises `ColumnError`, `SourceFormatError`."""
    for record in check_first_records(source, path, _samples(path)):
        yield record if isinstance(record, RejectedRow) else cells_of(source, record)


def _samples(path: Path) -> Iterator[Record | RejectedRow]:
    keys: set[str] = set()
    for key, members in groupby(_members(path), lambda member: member.key):
        origin = Origin(path, member=key)
        if key in keys:
            reason = "the key occurs again; expected unique keys and the members of a sample side by side"
            yield RejectedRow(origin, f"{reason}. Pack the shard with tar --sort=name")
        else:
            yield _sample(origin, list(members))
        keys.add(key)


def _sample(origin: Origin, members: list[_Member]) -> Record | RejectedRow:
    contents = {member.suffix: member.content for member in members}
    images = contents.keys() & IMAGE_SUFFIXES
    has_text = bool({CAPTION_SUFFIX, FIELDS_SUFFIX} & contents.keys())
    if len(contents) < len(members) or len(images) != 1 or not has_text:
        listed = ", ".join(member.suffix for member in members)
        expected = f"one image, and {CAPTION_SUFFIX} or {FIELDS_SUFFIX} with captions, each suffix once, side by side"
        return RejectedRow(origin, f"members {listed}; expected {expected}")
    caption = decode_captions(origin, contents[CAPTION_SUFFIX]) if CAPTION_SUFFIX in contents else None
    fields = _fields(origin, contents.get(FIELDS_SUFFIX, b"{}"))
    if isinstance(caption, RejectedRow):
        return caption
    if isinstance(fields, RejectedRow):
        return fields
    return Record(origin, fields.values, contents[images.pop()], () if caption is None else (caption,))


def _fields(origin: Origin, content: bytes) -> Record | RejectedRow:
    try:
        return parse_object(origin, to_utf8(content))
    except UnicodeDecodeError as error:
        return RejectedRow(origin, f"bad JSON: {describe(error)}; expected one object in UTF-8")


def _members(path: Path) -> Iterator[_Member]:
    num_left_out = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                name = info.name.removeprefix("./")
                if not info.isdir() and _belongs_to_sample(name):
                    yield _member(path, tar, info, name)
                else:
                    num_left_out += not info.isdir()
            _check_end(path, tar.offset)
    except tarfile.TarError as error:
        raise SourceFormatError(
            f"{path} cannot be read: {error}. Expected a whole, uncompressed .tar; write or download it again"
        ) from error
    if num_left_out:
        logger.info("%s: left out %d hidden, meta or nameless members", path, num_left_out)


def _belongs_to_sample(name: str) -> bool:
    """Leave out hidden members and, as the format has it, meta (`__name__`) and names without a suffix."""
    parts = name.split("/")
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    is_meta = any(part.startswith("__") and part.endswith("__") for part in parts)
    return "." in parts[-1] and not is_hidden and not is_meta


def _member(path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> _Member:
    # The key ends at the first dot of the name: `0001.seg.png` is another part of `0001` and not its image.
    folder, base = posixpath.split(name)
    stem, _, rest = base.partition(".")
    suffix = f".{rest.lower()}"
    try:
        file = tar.extractfile(info) if suffix in IMAGE_SUFFIXES | {CAPTION_SUFFIX, FIELDS_SUFFIX} else None
    except (KeyError, RecursionError) as error:  # a link, which tar writes for a file that it has packed before
        raise SourceFormatError(
            f"{path}, member {name} is a link to {info.linkname}, which holds no file; expected the file itself. "
            "Pack the shard with tar --dereference --hard-dereference"
        ) from error
    return _Member(posixpath.join(folder, stem), suffix, b"" if file is None else file.read())


def _check_end(path: Path, end: int) -> None:
    # tarfile takes a cut at the border of a member, and a hole, for the end; a whole archive says where it ends.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise SourceFormatError(
                f"{path} is cut short or damaged: neither a member nor the end mark at byte {end}. "
                "Expected a whole, closed .tar; write or download it again"
            )
        while piece := file.read(_PIECE_BYTES):  # padding, 10 kB as a rule
            if piece.count(0) < len(piece):
                raise SourceFormatError(
                    f"{path} goes on behind its end mark at byte {end}. Expected one archive: write or download it "
                    "again, and join several with tar --concatenate and not with cat"
                )

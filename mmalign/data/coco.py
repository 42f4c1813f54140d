"""COCO captions files: one JSON with `images` and `annotations`. Ids of images join the two and mean nothing elsewhere.

The file holds names, not pixels; COCO keeps the images in another folder, which `image_root` names.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.errors import SourceFormatError
from mmalign.data.json_layout import advise_json
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource
from mmalign.data.text import describe, to_utf8

_EXPECTED = "Expected one object with lists images and annotations, as in captions_train2017.json"

Id = int | str  # COCO has numbers; copies of the format have texts too


class _File(msgspec.Struct):
    # Entries stay raw until each is read alone, so that a bad one rejects itself and not the file.
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


class _Image(msgspec.Struct):
    id: Id
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: Id
    caption: str


_Entry = TypeVar("_Entry", _Image, _Annotation)


def read_coco(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield one row an image, with all its captions, and the entries that are wrong.

    Raises `SourceFormatError`.
    """
    file = _decode(path)
    captions: defaultdict[Id, list[str]] = defaultdict(list)
    for note in _entries(path, "annotations", file.annotations, _Annotation):
        if isinstance(note, RejectedRow):
            yield note
        else:
            captions[note.image_id].append(note.caption)
    for image in _entries(path, "images", file.images, _Image):
        yield image if isinstance(image, RejectedRow) else _row(path, image, captions.pop(image.id, []))
    for image_id in captions:
        origin = Origin(path, member=f"annotations of image {image_id}")
        yield RejectedRow(origin, "no image has this id; expected an entry in images")


def _decode(path: Path) -> _File:
    try:
        content = to_utf8(path.read_bytes())
        return msgspec.json.decode(content, type=_File)
    except UnicodeDecodeError as error:
        raise SourceFormatError(f"{path} is not a COCO captions file: it is {describe(error)}. {_EXPECTED}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        advice = advise_json(path, content)
        raise SourceFormatError(f"{path} is not a COCO captions file: {error}. {_EXPECTED}; {advice}") from error


def _entries(path: Path, name: str, raws: list[msgspec.Raw], as_type: type[_Entry]) -> Iterator[_Entry | RejectedRow]:
    for at, raw in enumerate(raws):
        try:
            yield msgspec.json.decode(raw, type=as_type)
        except UnicodeDecodeError as error:
            yield RejectedRow(Origin(path, member=f"{name}[{at}]"), f"{describe(error)}; expected UTF-8 text")
        except msgspec.DecodeError as error:
            expected = " and ".join(as_type.__struct_fields__)
            yield RejectedRow(Origin(path, member=f"{name}[{at}]"), f"{error}; expected {expected}")


def _row(path: Path, image: _Image, captions: list[str]) -> Cells | RejectedRow:
    origin = Origin(path, member=f"image {image.id}")
    if not captions:
        reason = "no caption: no annotation names this image, or an earlier image has its id"
        return RejectedRow(origin, f"{reason}; expected unique ids, each with one or more annotations")
    return Cells(origin, image.file_name, tuple(captions))

"""From an item to an open picture whose header was held against the limits; no pixel is decoded yet.

Paths are opened where they lie; a caller's file is read into memory first, so that whatever it raises belongs to its
item. Nothing but a regular file is opened: a pipe or a device could wait forever.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from mmalign_runtime.image.formats import HEAD_BYTES, ImageFormat, describe_foreign, promised_size, sniff_format
from mmalign_runtime.image.jpeg import unread_bytes, unseal
from mmalign_runtime.image.limits import check_bytes, check_size
from mmalign_runtime.image.plugins import Plugin, load_plugin
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.image.tiff import allocate, check_directory
from mmalign_runtime.places import foreign
from mmalign_runtime.spec import ImageLimits, ImageSpec

ImageItem: TypeAlias = str | Path | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[np.uint8]

_EMPTY = "the file is empty. Replace it."
# The formats of a buffer of single bytes, as the struct module has them.
_BYTE_FORMATS = frozenset("Bbc")
_BYTE_ORDERS = "@=<>!"
# Of a PNG.
_SIGNATURE_BYTES = 8
_AROUND_DATA = 12  # length and name before a chunk's data, checksum after


class Jpeg(msgspec.Struct, frozen=True):
    """A JPEG's bytes as stored, and the stream that Pillow will read them from."""

    raw: bytes
    stream: io.BytesIO


class Opened(msgspec.Struct, frozen=True):
    """A picture whose header was read, and its bytes where it is a JPEG."""

    image: Image.Image
    jpeg: Jpeg | None = None

    def load(self) -> None:
        """Have Pillow decode the picture. Raises Refusal where a JPEG is damaged in a way that Pillow passes over."""
        if self.jpeg is not None:
            unseal(self.jpeg.stream)
        self.image.load()


def detach(item: ImageItem, spec: ImageSpec) -> ImageItem:
    """Return an item that no longer hangs on its caller: the bytes of a file object, of a buffer that may change, or of
    a JPEG that is only open, a PIL image with its pixels. Raises Refusal, and what Pillow raises on damaged files.
    """
    if isinstance(item, Image.Image):
        check_size(item.size, spec)
        raw = unread_bytes(item)
        if raw is not None:
            return raw
        item.load()
    elif callable(getattr(item, "read", None)):
        return _read_file(cast("IO[bytes]", item), spec.limits)
    elif (view := _bytes_of(item)) is not None:
        check_bytes(view.nbytes, spec.limits)
        return view.tobytes()
    return item


def _bytes_of(item: object) -> memoryview | None:
    """Return the bytes of a row of bytes that another object holds: a bytearray, an array, a buffer of another library.

    None for bytes, which never change, and for what is not a row of bytes.
    """
    if isinstance(item, bytes):
        return None
    try:
        view = memoryview(item)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # not a buffer, one that was released, or of a type without a format
        return None
    return view if view.ndim == 1 and view.format.lstrip(_BYTE_ORDERS) in _BYTE_FORMATS else None


@contextmanager
def open_image(item: ImageItem, spec: ImageSpec) -> Iterator[Opened]:
    """Yield the picture of a detached item if it is inside the spec's limits.

    Raises Refusal, and what Pillow raises on damaged headers.
    """
    if isinstance(item, Image.Image):
        yield Opened(item)
        return
    with closing(_stream(item, spec.limits)) as stream:
        yield _open_stream(stream, spec)


def _stream(item: ImageItem, limits: ImageLimits) -> IO[bytes]:
    if isinstance(item, str | Path):
        return _open_path(item, limits)
    if isinstance(item, bytes):
        check_bytes(len(item), limits)
        return io.BytesIO(item)
    raise Refusal("open", _no_item(item))


def _open_path(path: str | Path, limits: ImageLimits) -> IO[bytes]:
    _check_name(path)
    status = os.stat(path)  # noqa: PTH116 a str stays a str: Path("") would be the working directory
    if stat.S_ISDIR(status.st_mode):
        raise Refusal("open", "Is a directory; expected a readable file. Pass the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("open", "it is a pipe, a socket or a device, expected a regular file. Save its bytes first.")
    if status.st_size == 0:
        raise Refusal("open", _EMPTY)
    check_bytes(status.st_size, limits)
    return Path(path).open("rb")


def _check_name(path: str | Path) -> None:
    if reason := foreign(path):
        raise Refusal("open", reason)
    text = str(path)
    if "\0" in text:
        raise Refusal(
            "open",
            "the path holds a NUL character, expected a path. A file's bytes go in as bytes; a list has a path a line.",
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise Refusal("open", f"the path is not a file name ({error.reason}). Check how it was decoded.") from error


def _read_file(file: IO[bytes], limits: ImageLimits) -> bytes:
    try:
        if file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek"):
            file.seek(0)
        raw = file.read(limits.max_bytes + 1)
    except Exception as error:  # a caller's file may raise anything, and that must not cost the other items
        raise Refusal("open", f"the file object cannot be read ({error}). Pass an open binary file.") from error
    if not isinstance(raw, bytes):
        seen = type(raw).__name__
        raise Refusal("open", f"the file object gives {seen}, expected bytes. Open it in binary mode ('rb').")
    if len(raw) > limits.max_bytes:
        check_bytes(len(raw), limits)
    return raw


def _no_item(item: object) -> str:
    kind = type(item).__name__
    if isinstance(item, memoryview):
        return f"a {kind} that is not a row of bytes is not an image: pass the file's bytes, such as item.tobytes()."
    if hasattr(item, "__array__") and not isinstance(item, np.generic):
        return f"a {kind} is not an image: pass a numpy array, (H, W, 3) uint8 RGB (of a torch tensor: tensor.numpy())."
    return f"a {kind} is not an image: pass a path, bytes, a file, a PIL image or an array."


def _open_stream(stream: IO[bytes], spec: ImageSpec) -> Opened:
    head = stream.read(HEAD_BYTES)
    if not head:
        raise Refusal("open", _EMPTY)
    image_format = sniff_format(head)
    if image_format is None:
        raise Refusal("open", describe_foreign(head))
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        reason = "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, expected False: a cut file would pass as a grey half."
        raise Refusal("open", f"{reason} Set it to False; some library may have set it.")
    if promised := promised_size(image_format, head):
        check_size(promised, spec)
    plugin = load_plugin(image_format)
    stream.seek(0)
    if image_format == "JPEG":
        return _open_jpeg(plugin, stream, spec)
    image = plugin(stream)
    check_size(image.size, spec)
    _check_whole(image, image_format, stream)
    return Opened(image)


def _open_jpeg(plugin: Plugin, stream: IO[bytes], spec: ImageSpec) -> Opened:
    raw = stream.getvalue() if isinstance(stream, io.BytesIO) else stream.read()  # of a BytesIO: no copy
    in_memory = stream if isinstance(stream, io.BytesIO) else io.BytesIO(raw)
    image = plugin(in_memory)
    check_size(image.size, spec)
    return Opened(image, Jpeg(raw, in_memory))


def _check_whole(image: ImageFile.ImageFile, image_format: ImageFormat, stream: IO[bytes]) -> None:
    """Look for damage that Pillow itself would pass over."""
    position = stream.tell()
    if image_format == "TIFF":
        check_directory(image)
        allocate(image)
    if image_format == "PNG":
        stream.seek(0)
        check_chunks(stream.read())
        stream.seek(position)


def check_chunks(raw: bytes) -> None:
    """Refuse a PNG with a wrong checksum, or one that ends before its IEND chunk (PNG specification, section 5).

    Pillow does not compare the checksums of pixel data, so a flipped bit would pass.
    """
    view, position = memoryview(raw), _SIGNATURE_BYTES
    while position + _AROUND_DATA <= len(raw):
        length, name = struct.unpack_from(">I4s", raw, position)
        end = position + _AROUND_DATA + length
        if end > len(raw):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", raw, end - 4)[0]:
            chunk = name.decode("latin-1")
            reason = (
                f"the PNG is damaged: the checksum of its chunk {chunk!r} at byte {position} does not fit: replace it."
            )
            raise Refusal("decode", reason)
        if name == b"IEND":
            return
        position = end
    raise Refusal("decode", f"the PNG is truncated: it ends at byte {len(raw)}, before its IEND chunk: replace it.")

"""Which images are the same: those with the same bytes, whatever their names and wherever they lie.

So a data set keeps its concepts, its splits and its figures when it is moved, renamed or written in another format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmalign.data.pair import Pair

_HASH_BYTES = 16  # 128 bits: no collision among 1e9 images to one part in 1e20
_PATH_PREFIX = "path:"


def hash_image(image: Path | bytes) -> str:
    """Return the hash of an image's bytes, 32 hexadecimal digits; of an empty file, what stands for its path.

    Raises OSError when the file cannot be read.
    """
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=_HASH_BYTES).hexdigest()
    with image.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_HASH_BYTES))
        is_empty = file.tell() == 0  # empty files are damaged, not one and the same image
    return path_identity(image) if is_empty else found.hexdigest()


def path_identity(image: Path) -> str:
    """Return what stands for an image whose bytes are not read: its path, links resolved."""
    return f"{_PATH_PREFIX}{image.resolve()}"


def is_path_identity(image_id: str) -> bool:
    """Say whether an identity says nothing of the image's bytes."""
    return image_id.startswith(_PATH_PREFIX)


def image_identity(pair: Pair) -> str:
    """Return the identity of a pair's image: as read from its source, else by its bytes or its resolved path."""
    if pair.image_id:
        return pair.image_id
    return hash_image(pair.image) if isinstance(pair.image, bytes) else path_identity(pair.image)

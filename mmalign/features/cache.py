"""Features of frozen towers on disk, so that they are computed once: an .npy file, and the hash of it behind its end.

Regions of images and tokens of texts, many times as large, are written as they are computed, in float16, and mapped and
not read.

What is kept here can always be computed again, so nothing that is wrong with it stops a run: it is logged.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.fingerprint import digest_texts
from mmalign_runtime.atomic import replacing

logger = logging.getLogger(__name__)

_HASH_BYTES = hashlib.sha256().digest_size
_NAME_LENGTH = 32  # hexadecimal digits: 128 bits, so that two keys never meet
# What numpy raises on files that are cut, empty or no array; MemoryError is a damaged shape.
_DAMAGED = (OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, TypeError)


class MappedRows:
    """The values of a file, (N, ...) float16, mapped from disk: memory holds those that are asked for.

    A pickled copy maps the file itself. A tensor's would be the whole file, in shared memory for worker processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Private to this process: torch wants memory that could be written.
        self._values = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        """Return the values of some rows."""
        return self._values[rows]

    def __reduce__(self) -> tuple[type[MappedRows], tuple[Path]]:
        return MappedRows, (self._path,)


class FeatureCache:
    """Features on disk by the digest of all that made them. A changed tower, spec or item is another file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self, key: Sequence[str | bytes], compute: Callable[[], Tensor], shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Return the features of `key`, (N, F) float32, computing and keeping them when they are not there.

        A file that is damaged, or of another shape than `shape`, is computed again and replaced; where nothing can be
        kept, the features are used all the same. Both are logged.
        """
        path = self._path(key)
        kept = _read(path, shape)
        if kept is not None:
            return torch.from_numpy(kept)
        features = compute()
        _write(path, features.numpy())
        return features

    def mapped(
        self,
        key: Sequence[str | bytes],
        compute: Callable[[], Iterable[Tensor]],
        shape: tuple[int, ...],
        *,
        what: str,
        instead: str,
    ) -> MappedRows:
        """Return the values of `key`, float16, mapped from disk; `compute` yields them some rows at a time.

        A damaged file is computed again. Raises ConfigError, that says `what` they are and which setting needs none of
        them `instead`, where they cannot be kept: memory need not hold them, and float16 has to.
        """
        path = self._path(key)
        if not _is_whole(path, shape):
            try:
                _write_rows(path, compute(), shape)
            except OverflowError as error:
                raise ConfigError(
                    f"{what} are kept in float16, and {error}. Set {instead}, or look at the tower's weights."
                ) from error
            except OSError as error:
                raise ConfigError(
                    f"{what} take {2 * math.prod(shape) / 1e6:,.0f} MB in {self.folder}, which cannot be written to "
                    f"({error.strerror or error}). Set train.cache_dir to a folder with room, or {instead}."
                ) from error
        return MappedRows(path)

    def _path(self, key: Sequence[str | bytes]) -> Path:
        return self.folder / f"{digest_texts(key)[:_NAME_LENGTH]}.npy"


def _read(path: Path, shape: tuple[int, int] | None) -> NDArray[np.float32] | None:
    try:
        with path.open("rb") as file:
            return _load(file, shape)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        logger.warning("%s cannot be used (%s): these features are computed again", path, error or type(error).__name__)
        return None


def _load(file: IO[bytes], shape: tuple[int, int] | None) -> NDArray[np.float32]:
    features = np.lib.format.read_array(file, allow_pickle=False)
    end = file.tell()
    if (
        features.dtype != np.float32
        or features.ndim != len(shape or (0, 0))
        or features.shape != (shape or features.shape)
    ):
        raise ValueError(f"it holds {features.dtype} {features.shape}, expected float32 {shape or '(N, F)'}")
    recorded = file.read()
    # Versions before this one wrote no hash.
    if recorded and recorded != _hash(file, end):
        raise ValueError("its hash is another one than when it was written")
    return features


def _hash(file: IO[bytes], num_bytes: int) -> bytes:
    file.seek(0)
    digest = hashlib.sha256()
    while num_bytes and (block := file.read(min(num_bytes, 2**20))):
        digest.update(block)
        num_bytes -= len(block)
    return digest.digest()


def _write(path: Path, features: NDArray[np.float32]) -> None:
    try:
        with replacing(path) as temporary, temporary.open("w+b") as file:
            np.save(file, features)
            file.write(_hash(file, file.tell()))
    except OSError as error:
        logger.warning(
            "these features are not kept, and are computed again next time: %s cannot be written (%s). Set "
            "train.cache_dir to a folder with room",
            *(path, error.strerror or error),
        )


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Say whether a file holds values of that shape, as they were written."""
    try:
        with path.open("rb") as file:
            mapped: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
            if mapped.dtype != np.float16 or mapped.shape != shape:
                raise ValueError(f"it holds {mapped.dtype} {mapped.shape}, expected float16 {shape}")
            file.seek(-_HASH_BYTES, os.SEEK_END)
            end, recorded = file.tell(), file.read()
            if recorded != _hash(file, end):
                raise ValueError("its hash is another one than when it was written")
            return True
    except FileNotFoundError:
        return False
    except _DAMAGED as error:
        logger.warning("%s cannot be used (%s): what it keeps is computed again", path, error or type(error).__name__)
        return False


def _write_rows(path: Path, parts: Iterable[Tensor], shape: tuple[int, ...]) -> None:
    with replacing(path) as temporary, temporary.open("w+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for part in parts:
            rounded = part.to(torch.float16)
            beyond = part[rounded.isinf() & part.isfinite()]  # what was not finite before, training names the pair of
            if len(beyond):
                raise OverflowError(f"one of them is {beyond[0]:g}")
            file.write(rounded.numpy().tobytes())
        file.write(_hash(file, file.tell()))

"""A few pairs that a run was not trained on, kept in its folder: for the golden cases of its bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from mmalign.data import Origin, Pair, Splits
from mmalign.errors import CheckpointError
from mmalign.run.pairs import decode_pair
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec
from mmalign_runtime.tokenizer import check_text

logger = logging.getLogger(__name__)

NUM_OWN = 4
OWN_PAIRS = "own_pairs.msgpack"


class _Kept(msgspec.Struct, frozen=True):
    """One pair as it is stored: the encoded image, its captions and its concept, and where the pair came from."""

    image: bytes
    captions: tuple[str, ...]
    concept: str
    source_path: str


def usable_pairs(pairs: Sequence[Pair], image: ImageSpec, text: TextSpec) -> tuple[Pair, ...]:
    """Return the first `NUM_OWN` pairs that can be embedded, with their images as bytes; others are logged."""
    return tuple(islice(_usable(pairs, image, text), NUM_OWN))


def unseen(splits: Splits) -> tuple[Pair, ...]:
    """Return the pairs that were learned from least: the test ones, or the validation ones, or those of training."""
    return splits.test or splits.val or splits.train


def keep_own_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Write pairs whose images are bytes. Raises CheckpointError where that is not possible."""
    kept = [
        _Kept(pair.image, pair.captions, pair.concept, str(pair.origin.source_path))
        for pair in pairs
        if isinstance(pair.image, bytes)
    ]
    with named_writes(path), replacing(path) as temporary:
        temporary.write_bytes(msgspec.msgpack.encode(kept))


def read_own_pairs(path: Path) -> tuple[Pair, ...] | None:
    """Return the pairs that were kept, or None where a run has none. Raises CheckpointError for a damaged file."""
    if not path.is_file():
        return None
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=list[_Kept])
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Restore it, or remove it: the data is read then."
        ) from error
    return tuple(
        Pair(image=pair.image, captions=pair.captions, concept=pair.concept, origin=Origin(Path(pair.source_path)))
        for pair in kept
    )


def _usable(pairs: Sequence[Pair], image: ImageSpec, text: TextSpec) -> Iterator[Pair]:
    for index, pair in enumerate(pairs):
        try:
            data = pair.image if isinstance(pair.image, bytes) else _read(pair, index)
            found = msgspec.structs.replace(pair, image=data)
            decode_pair(found, image, index)
            check_text(pair.captions[0], index, text)
        except ItemError as error:
            logger.warning("not taken as a golden case: %s", error)
        else:
            yield found


def _read(pair: Pair, index: int) -> bytes:
    assert isinstance(pair.image, Path)
    try:
        return pair.image.read_bytes()
    except OSError as error:
        raise ItemError(index, f"{pair.origin}: {pair.image}", "open", f"{error.strerror}; expected a file.") from error

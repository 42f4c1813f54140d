"""From the configuration's sources to pairs on their sides, each still knowing its source.

Held-out sources lend nothing to training; of them only the validation and test concepts are evaluated. Sources with
`split = "train"` lend nothing to validation and test, and give way to them. Concepts that share an image are on one
side, whatever sources they come from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from torch import Tensor

from mmalign.config import DataConfig
from mmalign.data import (
    DataSource,
    EmptySourceError,
    Pair,
    Splits,
    joined_concepts,
    merge_pairs,
    read_pairs,
    split_sources,
)
from mmalign.data.augment import ImageAugment
from mmalign.data.identity import image_identity
from mmalign.errors import TrainingError
from mmalign.figures.truncation import check_captions
from mmalign.fingerprint import digest_texts
from mmalign.progress import track
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import Pixels, WantedPixels, decode_image
from mmalign_runtime.spec import ImageSpec, TextSpec

logger = logging.getLogger(__name__)

_LEAST_PAIRS = 2  # below two there is nothing to contrast
_DEFAULT_SPEC, _DEFAULT_TEXT_SPEC = ImageSpec(), TextSpec()


class SourcePairs(msgspec.Struct, frozen=True):
    """The pairs of one source on their sides; `name` is the file's stem, or its path where stems are alike.

    Of one that is not evaluated all pairs are for training.
    """

    name: str
    is_held_out: bool
    splits: Splits
    is_evaluated: bool = True


def load_sources(
    config: DataConfig, image: ImageSpec = _DEFAULT_SPEC, text: TextSpec = _DEFAULT_TEXT_SPEC
) -> tuple[SourcePairs, ...]:
    """Read every source that is not streamed, held-out ones last, one pair an image. Raises DataError naming source and
    line.

    With `on_error` "skip" pairs are left out whose image cannot be decoded as `image` says, or that have a caption that
    is too long by `text`.
    """
    listed = [(source, False) for source in config.sources if not source.stream] + [
        (source, True) for source in config.held_out
    ]
    stems = Counter(Path(source.path).stem for source, _ in listed)
    read = [_read(source, config, image, text) for source, _ in listed]
    is_evaluated = [source.split == "auto" for source, _ in listed]
    joined = joined_concepts(pair for pairs, own in zip(read, is_evaluated, strict=True) if own for pair in pairs)
    _report_joined(joined)
    _report_shared_numbers([source.path for source, _ in listed], read)
    sides = split_sources(read, is_evaluated, config.split, joined)
    loaded = []
    for (source, is_held_out), own, pairs, splits in zip(listed, is_evaluated, read, sides, strict=True):
        stem = Path(source.path).stem
        loaded.append(SourcePairs(stem if stems[stem] == 1 else source.path, is_held_out, splits, is_evaluated=own))
        if not own:
            _report_withheld(loaded[-1], len(pairs))
    return tuple(loaded)


def check_enough(splits: Splits, *, is_streamed: bool = False) -> None:
    """Raise TrainingError when there are too few pairs to train and to validate; those streamed are not among them."""
    if is_streamed and len(splits.val) < _LEAST_PAIRS:
        raise TrainingError(
            f"the val split has {len(splits.val)} pairs, expected at least {_LEAST_PAIRS}; streamed sources are all "
            "for training. Add a source that is not streamed, whose val and test sides are evaluated."
        )
    for name, pairs in () if is_streamed else (("train", splits.train), ("val", splits.val)):
        if len(pairs) < _LEAST_PAIRS:
            raise TrainingError(
                f"the {name} split has {len(pairs)} pairs, expected at least {_LEAST_PAIRS}. Add pairs, or change "
                "data.split; concepts are split whole, so one concept with many pairs is on one side."
            )


def merged_splits(sources: Sequence[SourcePairs]) -> Splits:
    """Return the pairs of the sources that are not held out: an image that several of them name is one pair."""
    sides = [source.splits for source in sources if not source.is_held_out]
    return Splits(
        train=merge_pairs(pair for side in sides for pair in side.train),
        val=merge_pairs(pair for side in sides for pair in side.val),
        test=merge_pairs(pair for side in sides for pair in side.test),
    )


def identify_pairs(splits: Splits) -> str:
    """Return an id of the pairs that training depends on: which images they are and what is said of them, in order."""
    return digest_texts(
        text
        for name, side in (("train", splits.train), ("val", splits.val))
        for pair in side
        for text in (name, image_identity(pair), pair.concept, *pair.captions)
    )


def decode_pair(pair: Pair, spec: ImageSpec, index: int, wanted: WantedPixels | None = None) -> Pixels:
    """Decode a pair's image as the runtime does. Raises ItemError that names the pair's origin."""
    try:
        return decode_image(pair.image, spec, index=index, wanted=wanted)
    except ItemError as error:
        raise ItemError(index, f"{pair.origin}: {error.source}", error.stage, error.reason) from error


def augment_pair(pair: Pair, augment: ImageAugment, index: int, seed: int) -> Tensor:
    """Return one augmented view (3, S, S) of a pair's image, decoded no finer than its crop needs where so configured.

    Raises ItemError as `decode_pair`.
    """
    stored: list[tuple[int, int]] = []  # of a JPEG

    def wanted(shape: tuple[int, int]) -> tuple[int, int]:
        stored.append(shape)
        return augment.wanted(shape, seed)

    if augment.config.jpeg_oversampling is None:
        return augment(decode_pair(pair, augment.spec, index), seed)
    return augment(decode_pair(pair, augment.spec, index, wanted), seed, *stored)


def _read(source: DataSource, config: DataConfig, image: ImageSpec, text: TextSpec) -> Sequence[Pair]:
    pairs = merge_pairs(read_pairs(source, on_error=config.on_error).pairs)
    return pairs if config.on_error == "raise" else _without_damaged(source, pairs, image, text)


def _report_joined(joined: Mapping[str, str]) -> None:
    sizes = Counter(joined.values())
    num_joined = sum(size for size in sizes.values() if size > 1)
    if num_joined:
        (largest, size), *_ = sizes.most_common(1)
        logger.warning(
            "%d of %d concepts share images with others, so they are on one side; the most together are %d, with %r",
            *(num_joined, len(joined), size, largest),
        )


def _report_withheld(source: SourcePairs, num_pairs: int) -> None:
    logger.info(
        "%s is trained on alone: %d of %d pairs are left out, whose concept or image is in validation or test",
        *(source.name, num_pairs - len(source.splits.train), num_pairs),
    )


def _report_shared_numbers(names: Sequence[str], read: Sequence[Sequence[Pair]]) -> None:
    """Warn of sources whose concepts look like numbers of their own rows: equal ones would be the same concept."""
    numbered: dict[str, set[str]] = {}
    for name, pairs in zip(names, read, strict=True):
        concepts = {pair.concept for pair in pairs}
        if not all(concept.isdecimal() for concept in concepts):
            continue
        for other, known in numbered.items():
            if shared := concepts & known:
                logger.warning(
                    "%s and %s have %d concepts in common, all of them whole numbers, and equal ones are taken for the "
                    "same concept. If they number rows or images, leave concept_column out: rows of one image belong "
                    "together anyway",
                    *(other, name, len(shared)),
                )
        numbered[name] = concepts


def _without_damaged(source: DataSource, pairs: Sequence[Pair], image: ImageSpec, text: TextSpec) -> Sequence[Pair]:
    def damage(numbered: tuple[int, Pair]) -> ItemError | None:
        try:
            check_captions(numbered[1], text, numbered[0])
            decode_pair(numbered[1], image, numbered[0])
        except ItemError as error:
            return error
        return None

    with ThreadPoolExecutor(available_threads()) as threads:  # Pillow decodes without holding the interpreter's lock
        found = list(track(threads.map(damage, enumerate(pairs)), f"{source.path}: decoding", len(pairs)))
    errors = [error for error in found if error is not None]
    if len(errors) == len(pairs):
        raise EmptySourceError(f"{source.path}: none of {len(pairs)} pairs can be trained on; the first: {errors[0]}")
    if errors:
        logger.warning("%s: skipped %d of %d pairs; the first: %s", source.path, len(errors), len(pairs), errors[0])
    return [pair for pair, error in zip(pairs, found, strict=True) if error is None]

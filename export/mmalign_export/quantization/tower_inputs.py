"""What the towers of a bundle are fed while recipes are tried: batches to judge by, golden cases, calibration items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmalign_export.quantization.convolutions import Bounds
from mmalign_export.quantization.examples import Calibration, PixelValues, Questions, prepared_images
from mmalign_export.quantization.items import Item, image_items, text_items
from mmalign_export.quantization.search import GoldenFeeds
from mmalign_runtime.bundle.golden import ImageCase, TextCase, load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import ImageSpec, Modality
from mmalign_runtime.tokenizer import TokenBatch

_IMAGE_BATCH, _NUM_SCANNED = 8, 16


def batches_of(embedder: Embedder, questions: Questions) -> dict[Modality, tuple[Feeds, ...]]:
    """Return the images and the texts to judge by, in batches."""
    return {
        "image": _image_feeds(embedder, questions.images),
        "text": tuple(_text_feeds(embedder, tokens) for tokens in questions.tokens),
    }


def items_of(embedder: Embedder, kind: Modality, examples: Calibration | Questions) -> tuple[Item, ...]:
    """Return the images or the texts of a sample as single items."""
    if kind == "image":
        return image_items(examples.images, embedder.image.inputs.pixel_values)
    is_padded = embedder.text.tokenizer.spec.padding == "fixed"
    return text_items(examples.tokens, embedder.text.inputs, is_padded=is_padded)


def bounds_of(embedder: Embedder, kind: Modality) -> dict[str, Bounds]:
    """Return what a tower's inputs hold at most, by name: what the darkest and the lightest pixel become.

    Patches hold their places beside pixels, and no such tower has convolutions, which these bounds are for.
    """
    if kind != "image" or embedder.image.spec.resize == "naflex":
        return {}
    return {embedder.image.inputs.pixel_values: _pixel_bounds(embedder.image.spec)}


def scanned_of(embedder: Embedder, kind: Modality, examples: Calibration) -> Feeds:
    """Return a small batch of the calibration for the sensitivity scan."""
    if kind == "image":  # from one end to the other: the golden photographs stand last
        every = max(1, len(examples.images) // _NUM_SCANNED)
        name = embedder.image.inputs.pixel_values
        return {name: np.concatenate(examples.images[::every][:_NUM_SCANNED])}
    return _text_feeds(embedder, examples.tokens[0])


def golden_of(embedder: Embedder) -> Mapping[Modality, GoldenFeeds]:
    """Return the golden cases of both towers, each alone, and PyTorch's vectors."""
    golden = load_golden(embedder.bundle)
    images = prepared_images([embedder.bundle.source(case.file) for case in golden.images], embedder)
    tokens = [embedder.text.tokenizer.encode([case.text]) for case in golden.texts]
    pixel_values = embedder.image.inputs.pixel_values
    return {
        "image": _golden_feeds(golden.images, [{pixel_values: image} for image in images]),
        "text": _golden_feeds(golden.texts, [_text_feeds(embedder, each) for each in tokens]),
    }


def _golden_feeds(cases: Sequence[ImageCase | TextCase], feeds: Sequence[Feeds]) -> GoldenFeeds:
    vectors = np.array([case.embedding for case in cases], np.float32)
    return GoldenFeeds(tuple(case.name for case in cases), tuple(feeds), vectors)


def _pixel_bounds(spec: ImageSpec) -> Bounds:
    ends = [(value - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True) for value in (0.0, 1.0)]
    return min(ends), max(ends)


def _image_feeds(embedder: Embedder, images: Sequence[PixelValues]) -> tuple[Feeds, ...]:
    name = embedder.image.inputs.pixel_values
    starts = range(0, len(images), _IMAGE_BATCH)
    return tuple({name: np.concatenate(images[start : start + _IMAGE_BATCH])} for start in starts)


def _text_feeds(embedder: Embedder, tokens: TokenBatch) -> Feeds:
    return embedder.text.inputs.feeds(tokens.input_ids, tokens.attention_mask)

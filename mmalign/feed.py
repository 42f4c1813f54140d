"""Wires training pairs to the steps: cached features for a frozen tower, images or texts for one that learns.

Shapes: V views, N pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmalign.augment import ImageAugment
from mmalign.config import Config
from mmalign.data import Pair
from mmalign.inputs import CachedImages, CachedTexts, ImageInputs, LiveImages, LiveTexts, Steps, TextInputs
from mmalign.towers import Towers


def feed_steps(config: Config, towers: Towers, pairs: Sequence[Pair]) -> Steps:
    """Return the steps of training on `pairs`; features of frozen towers are computed here, before the first step.

    Raises ItemError for an image that cannot be decoded.
    """
    first_caption = config.augment.first_caption
    return Steps(pairs, _image_inputs(config, towers, pairs), _text_inputs(towers, pairs), first_caption)


def _image_inputs(config: Config, towers: Towers, pairs: Sequence[Pair]) -> ImageInputs:
    augment = ImageAugment(config.augment, config.image)
    if not towers.keeps_images:
        return LiveImages(pairs, augment, config.image)
    views = [towers.view_features(pairs, augment, view) for view in range(1, config.train.num_views + 1)]
    return CachedImages(torch.stack([towers.image_features(pairs, "training"), *views]))  # (V, N, F)


def _text_inputs(towers: Towers, pairs: Sequence[Pair]) -> TextInputs:
    if not towers.keeps_texts:
        return LiveTexts(pairs, towers.model.text.bound_tokenizer)
    row_of: dict[str, int] = {}
    rows_of_pair = [[row_of.setdefault(caption, len(row_of)) for caption in pair.captions] for pair in pairs]
    return CachedTexts(towers.text_features(list(row_of), "training"), rows_of_pair)

"""The vectors of a teacher bundle for the pairs of training: computed once by the runtime, and kept as features are.

Shapes: N pairs, M captions, T of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mmalign.config import Config
from mmalign.data import Pair
from mmalign.errors import ConfigError
from mmalign.features import content_key
from mmalign.features.cache import FeatureCache
from mmalign.fingerprint import digest_texts
from mmalign.losses.distillation import Distillation
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.embedder import Embedder


class Teacher(msgspec.Struct, frozen=True):
    """A teacher's vectors of all images (N, T) and all captions (M, T), and its scale of cosines."""

    images: Tensor
    texts: Tensor
    scale: float


def check_teacher(term: Distillation, embed_dim: int) -> None:
    """Raise, before anything is trained or written, what `read_teacher` would raise of the bundle."""
    with Embedder.load(term.teacher) as embedder:
        _check_width(term, embedder.embed_dim, embed_dim)


def identify_teacher(config: Config) -> str:
    """Return the space of the teacher's vectors, nothing where there is none. Raises BundleError."""
    term = config.term(Distillation)
    return open_bundle(term.teacher).spec.space_id if term else ""


def read_teacher(
    term: Distillation, pairs: Sequence[Pair], captions: Sequence[str], cache_dir: Path, embed_dim: int
) -> Teacher:
    """Return what a bundle gives for the images of `pairs` and for `captions`.

    Raises BundleError for a bundle that cannot be used, ItemError for an image that it cannot embed, and ConfigError
    where its vectors are to be the model's and have another width than `embed_dim`.
    """
    cache = FeatureCache(cache_dir)
    with Embedder.load(term.teacher) as embedder:
        _check_width(term, embedder.embed_dim, embed_dim)
        made_by = ["teacher", embedder.space_id, embedder.info().variant_id]
        images = cache.get(
            [*made_by, "images", digest_texts(map(content_key, pairs))],
            lambda: torch.from_numpy(embedder.encode_image([pair.image for pair in pairs])),
            (len(pairs), embedder.embed_dim),
        )
        texts = cache.get(
            [*made_by, "texts", digest_texts(captions)],
            lambda: torch.from_numpy(embedder.encode_text(captions)),
            (len(captions), embedder.embed_dim),
        )
        return Teacher(images, texts, embedder.similarity.scale)


def _check_width(term: Distillation, width: int, embed_dim: int) -> None:
    if term.form == "embedding" and width != embed_dim:
        raise ConfigError(
            f"the teacher {term.teacher} gives vectors of {width} components, and model.embed_dim is {embed_dim}. Set "
            f"model.embed_dim = {width}, or form = \"similarity\" in the term 'distillation'."
        )

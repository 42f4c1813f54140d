"""Settings that a run would not read, and what its teacher, towers and streams do not allow: refused at its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmalign.config import Config, StreamConfig
from mmalign.data import Splits
from mmalign.distributed import World
from mmalign.errors import ConfigError
from mmalign.features import ModelFeatures
from mmalign.features.near_synonyms import without_near_synonyms
from mmalign.losses.distillation import Distillation
from mmalign.model import DualEncoder, is_frozen
from mmalign.model.batch_statistics import has_batch_statistics
from mmalign.model.chunks import Chunk, Sharing
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.run.pairs import SourcePairs
from mmalign.towers.additions import is_still_below_pool
from mmalign.training.teacher import check_teacher


def check_streamable(config: Config) -> None:
    """Raise ConfigError for a setting that needs all pairs before training, which a streamed source does not give."""
    asked = {
        "mining.share": config.mining.share > 0,
        "data.split.max_caption_similarity": config.data.split.max_caption_similarity is not None,
        "train.num_views": config.train.num_views > 0,
        'model.start = "linear_map"': config.model.start == "linear_map",
        "the term 'distillation'": config.term(Distillation) is not None,
    }
    if names := [name for name, is_asked in asked.items() if is_asked]:
        raise ConfigError(
            f"{', '.join(names)}: computed over all training pairs before or between steps, and a source of "
            "data.sources has stream = true, which is read as training goes. Leave out one or the other."
        )


def check_settings(config: Config) -> None:
    """Raise, before any data is read, as `check_read`, and what training would of a teacher."""
    check_read(config)
    term, num_members = config.term(Distillation), config.model.num_members
    if term is None:
        return
    if term.form == "embedding" and num_members > 1:
        raise ConfigError(
            f"the vectors of model.num_members = {num_members} heads lie along directions of their own, and form = "
            "\"embedding\" of the term 'distillation' asks for the teacher's vectors. Set num_members = 1, or form = "
            '"similarity".'
        )
    check_teacher(term, config.model.embed_dim)


def check_read(config: Config) -> None:
    """Raise ConfigError for a setting other than the default that this run would not read, as others stand."""
    images, texts, optim = config.image_tower, config.text_tower, config.optim
    is_streamed = any(source.stream for source in config.data.sources)
    unread = {
        ("data.stream", "no source has stream = true"): config.data.stream != StreamConfig() and not is_streamed,
        ("image_tower.frozen_blocks", "image_tower.frozen is true"): images.frozen and images.frozen_blocks > 0,
        ("text_tower.frozen_blocks", "text_tower.frozen is true"): texts.frozen and texts.frozen_blocks > 0,
        ("train.num_views", "image_tower.frozen is false, and what learns sees another view at each step"): (
            config.train.num_views > 0 and not images.frozen
        ),
        ("optim.unfreeze_every", "the run has no more train.epochs, and before them no block of a tower learns"): (
            optim.unfreeze_every >= config.train.epochs and not (images.frozen and texts.frozen)
        ),
        ("optim.layer_decay", "both towers are frozen"): optim.layer_decay != 1 and images.frozen and texts.frozen,
        ("optim.unfreeze_every", "both towers are frozen"): optim.unfreeze_every > 0 and images.frozen and texts.frozen,
    }
    for (key, reason), is_unread in unread.items():
        if is_unread:
            raise ConfigError(f"{key} would not be read: {reason}. Change that, or leave {key} out.")


def check_new_run(
    run: Run,
    sources: Sequence[SourcePairs],
    splits: Splits,
    device: torch.device,
    world: World,
    *,
    num_streamed: int | None = None,
) -> None:
    """Raise ConfigError where what is to learn cannot, and what training would of few pairs without near-synonyms.

    The first process does so alone; what near-synonyms are told by is the features of a tower that stands still, so
    that they are in the cache when all processes ask for them.
    """
    config = run.config
    _check_learning(run.model, config)
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), device, is_training=True)
    limit = config.data.split.max_caption_similarity
    num_pairs = num_streamed or len(without_near_synonyms(splits, sources, limit, features.texts, is_trial=True).train)
    sharing = Sharing(config.train.chunk_size, world.rank, world.size)
    batch_size = min(config.train.batch_size, num_pairs)
    sharing.check(batch_size, run.model)
    _check_chunks(sharing.chunks(batch_size), run.model)


def _check_learning(model: DualEncoder, config: Config) -> None:
    """Raise ConfigError where a tower that is to learn, all of the model, or some components of its vectors cannot."""
    frozen = {"image_tower": config.image_tower.frozen_blocks, "text_tower": config.text_tower.frozen_blocks}
    for name, num_blocks in frozen.items():
        if num_blocks and is_still_below_pool(model.get_submodule(name)):
            raise ConfigError(
                f"{name}.frozen_blocks = {num_blocks} leaves nothing of the tower to learn. Set fewer, or "
                f"{name}.frozen = true, with which its features are computed once."
            )
    if is_frozen(model):
        raise ConfigError(
            "nothing would learn: both towers are frozen, both heads are of kind 'identity', and the loss has nothing "
            "of its own to learn. Let a tower learn, or choose another head."
        )
    width, directions = config.model.embed_dim, model.text_tower.feature_dim
    if config.model.start == "linear_map" and width > directions:
        raise ConfigError(
            f'start = "linear_map" has as many directions as the text tower has features, {directions}, and '
            f"model.embed_dim is {width}: the components beyond would stay 0 and never learn. Set model.embed_dim = "
            f'{directions} or less, or start = "random".'
        )


def _check_chunks(chunks: Sequence[Chunk], model: DualEncoder) -> None:
    """Raise ConfigError for a chunk of one pair in a tower with BatchNorm."""
    learning = [tower for tower in (model.image_tower, model.text_tower) if not is_frozen(tower)]
    sizes = [chunk.size for chunk in chunks]
    if min(sizes) == 1 and any(map(has_batch_statistics, learning)):
        raise ConfigError(
            f"train.chunk_size cuts a batch of {sum(sizes)} pairs into chunks of {max(sizes)} and of one, and a tower "
            "that learns has BatchNorm, which needs two. Set another train.chunk_size, or freeze the tower."
        )

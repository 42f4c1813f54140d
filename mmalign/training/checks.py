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
from mmalign.model.chunks import Sharing
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.run.pairs import SourcePairs
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
    """Raise as `check_read`, and what training would of a teacher, of few pairs without near-synonyms, of BatchNorm.

    The first process does so alone; what near-synonyms are told by is the features of a tower that stands still, so
    that they are in the cache when all processes ask for them.
    """
    config = run.config
    check_read(config)
    if term := config.term(Distillation):
        check_teacher(term, config.model.embed_dim)
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), device, is_training=True)
    limit = config.data.split.max_caption_similarity
    num_pairs = num_streamed or len(without_near_synonyms(splits, sources, limit, features.texts, is_trial=True).train)
    sharing = Sharing(config.train.chunk_size, world.rank, world.size)
    sharing.check(min(config.train.batch_size, num_pairs), run.model)

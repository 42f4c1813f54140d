"""What a run's teacher, towers and streamed sources do not allow, refused before the run's folder is begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmalign.config import Config
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


def check_new_run(
    run: Run,
    sources: Sequence[SourcePairs],
    splits: Splits,
    device: torch.device,
    world: World,
    *,
    num_streamed: int | None = None,
) -> None:
    """Raise what training would raise of a teacher, of too few pairs without near-synonyms, and of BatchNorm.

    The first process does so alone; what near-synonyms are told by is the features of a tower that stands still, so
    that they are in the cache when all processes ask for them.
    """
    config = run.config
    if term := config.term(Distillation):
        check_teacher(term, config.model.embed_dim)
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), device, is_training=True)
    limit = config.data.split.max_caption_similarity
    num_pairs = num_streamed or len(without_near_synonyms(splits, sources, limit, features.texts, is_trial=True).train)
    sharing = Sharing(config.train.chunk_size, world.rank, world.size)
    sharing.check(min(config.train.batch_size, num_pairs), run.model)

"""What a run's teacher and towers do not allow, refused before the run's folder is begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmalign.chunks import Sharing
from mmalign.data import Splits
from mmalign.distributed import World
from mmalign.features import ModelFeatures
from mmalign.losses.distillation import Distillation
from mmalign.near_synonyms import without_near_synonyms
from mmalign.pairs import SourcePairs
from mmalign.run import Run
from mmalign.run_model import dual_model
from mmalign.teacher import check_teacher


def check_new_run(run: Run, sources: Sequence[SourcePairs], splits: Splits, device: torch.device, world: World) -> None:
    """Raise what training would raise of a teacher, of too few pairs without near-synonyms, and of BatchNorm.

    The first process does so alone; what near-synonyms are told by is the features of a tower that stands still, so
    that they are in the cache when all processes ask for them.
    """
    config = run.config
    if term := config.term(Distillation):
        check_teacher(term, config.model.embed_dim)
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), device, is_training=True)
    limit = config.data.split.max_caption_similarity
    num_pairs = len(without_near_synonyms(splits, sources, limit, features.texts, is_trial=True).train)
    sharing = Sharing(config.train.chunk_size, world.rank, world.size)
    sharing.check(min(config.train.batch_size, num_pairs), run.model)

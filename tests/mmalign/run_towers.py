"""The towers of a run as training and evaluation take them."""

from __future__ import annotations

from pathlib import Path

import torch

from mmalign.run import Run
from mmalign.run_model import dual_model
from mmalign.towers import Towers


def towers_of(run: Run, *, is_training: bool) -> Towers:
    """Return a run's towers on the CPU, features kept where its configuration says."""
    return Towers(dual_model(run), Path(run.config.train.cache_dir), torch.device("cpu"), is_training=is_training)

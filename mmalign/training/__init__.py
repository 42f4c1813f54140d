"""Training: `train_run` reads down from pairs to a checkpoint, `trainer` takes the steps, the rest gives it batches.

`inputs` and `shard_steps` are the two sources of batches, `sides` what a batch is made of; `mining`, `teacher` and
`closed_form` add hard negatives, a teacher's vectors and a start; `checks` refuses what cannot work before it begins;
`records` and `metrics` write what happened.
"""

from __future__ import annotations

from mmalign.training.train_run import TrainResult, train

__all__ = ["TrainResult", "train"]

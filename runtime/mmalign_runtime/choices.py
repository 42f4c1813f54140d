"""What an embedder is loaded with, unless a profile or the caller says otherwise."""

from __future__ import annotations

import msgspec

from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import DEFAULT_ENGINE, ComputePrecision

DEFAULT_BATCH_SIZE = 32


class BatchSizes(msgspec.Struct, frozen=True):
    """How many items go through each tower at once, in calls that do not say."""

    image: int = DEFAULT_BATCH_SIZE
    text: int = DEFAULT_BATCH_SIZE


class Choices(msgspec.Struct, frozen=True):
    """The arguments of `Embedder.load` that a profile can choose. `num_threads` None is what is available."""

    engine: str = DEFAULT_ENGINE
    provider: Provider = "auto"
    precision: ComputePrecision = "fp32"
    num_threads: int | None = None
    allow_spinning: bool = False
    batch_sizes: BatchSizes = BatchSizes()

"""What runs a tower, whatever engine it is: an `Engine` opens a bundle's file as a `Session`, which runs it.

Every engine takes the same files of the bundle where it can, and gives vectors within the same bounds. The
preprocessing graph is not a choice: onnxruntime runs it beside every engine, since the pixels are part of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.config import ComputePrecision as ComputePrecision  # for engines of other distributions
from mmalign_runtime.config import Provider, ResolvedProvider, RuntimeConfig
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.errors import EngineError, ProviderError
from mmalign_runtime.spec import Artifact, BundleSpec

Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]

# What onnxruntime, OpenVINO, PyTorch and CUDA say when memory runs out.
_MEMORY_WORDS = ("alloc", "out of memory", "out_of_memory", "not enough memory", "insufficient memory")


class SessionOptions(RuntimeConfig, frozen=True):
    """How a graph is run: the config as it was resolved here, and what suits one graph. Engines ignore what they lack.

    `reuse_memory_plan` suits inputs whose shape stays the same from call to call; for others onnxruntime would keep a
    plan for every shape it ever saw. `keep_memory` keeps what the largest run needed for the runs after it: quick where
    all need about the same, and lost for good where one input is far larger than the others. `takes_turns` sends runs
    through the pool's semaphore.
    """

    provider: ResolvedProvider
    pool: Pool
    reuse_memory_plan: bool = True
    keep_memory: bool = True
    takes_turns: bool = True


class NodeGroup(msgspec.Struct, frozen=True):
    """How many nodes of one operator one execution provider took."""

    provider: str
    operator: str
    num_nodes: int


class ExternalFile(msgspec.Struct, frozen=True):
    """A bundle's file with weights of a model: where the model says that it is, its bytes, and its sha256."""

    location: str
    view: memoryview
    sha256: str


class Model(msgspec.Struct, frozen=True):
    """A file to run: its path or its bytes, the name it goes by in messages, its inputs in order, how to compute it.

    `sha256` is what the bundle says of it. `external` are the only files that it may keep weights in.
    """

    source: FileSource
    name: str
    input_names: tuple[str, ...]
    precision: ComputePrecision = "fp32"
    sha256: str = ""
    external: tuple[ExternalFile, ...] = ()


class Session(Protocol):
    """One model, ready to run. `run` is safe to call from many threads at once."""

    name: str
    options: SessionOptions

    @property
    def num_runs(self) -> int:
        """How many runs at once take less time than one after the other."""

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the model and return its only output, float32, in memory that no later run touches.

        Raises EngineError when the engine gives up, EmbedderStateError after `close` and in a forked child.
        """

    def choices(self) -> tuple[ProviderChoice, ...]:
        """Return what the graph was offered to, in order: an execution provider or a device, with its options."""

    def placement(self) -> tuple[NodeGroup, ...]:
        """Return which of them took how many nodes of which operator, most first."""

    def close(self) -> None:
        """Let go of the model and its memory. A run that is going on ends first."""


class Engine(Protocol):
    """A library that runs towers. One that is not installed raises MissingDependencyError, whatever it is asked.

    `runs_onnx` says whether it opens .onnx files other than a bundle's own, as verify's probe of float32 is.
    """

    name: str
    runs_onnx: bool

    def version(self) -> str:
        """Return the version of the library."""

    def resolve_provider(self, asked: Provider) -> ResolvedProvider:
        """Return the provider to use for `asked`. Raises ProviderError when it is unknown or not there."""

    def artifact(self, spec: BundleSpec, tower: str, precision: ComputePrecision) -> Artifact:
        """Return the bundle's artifact to run, whose recorded parity the vectors are held to.

        Raises BundleError when the bundle has none, ProviderError when it cannot be computed so here.
        """

    def variant_id(self, spec: BundleSpec, precision: ComputePrecision) -> str:
        """Return the id of the files that both towers run, and of how they are computed."""

    def open(self, model: Model, options: SessionOptions) -> Session:
        """Load a model.

        Raises ProviderError when the provider did not take it, BundleError when it cannot be loaded,
        BundleIntegrityError when it keeps weights elsewhere.
        """


def run_failed(name: str, feeds: Feeds, error: Exception) -> EngineError:
    """Return the error of a run that the engine gave up, with the shapes that it was given."""
    shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
    seen = one_line(error)
    is_memory = isinstance(error, MemoryError) or any(words in seen.lower() for words in _MEMORY_WORDS)
    fix = "Use a smaller batch_size, or free some memory." if is_memory else "Run `mmalign verify` on the bundle."
    return EngineError(f"{name} failed on {shapes}: {seen} {fix}")


def one_line(error: Exception) -> str:
    """Return the message of an error, which some engines spread over many lines."""
    return " ".join(str(error).split())


def refuse_cache(engine: str, options: SessionOptions) -> None:
    """Raise ProviderError when a graph is to be kept in the cache, by an engine that keeps none."""
    if options.cache:
        raise ProviderError(f"engine {engine!r} keeps nothing in a cache. Leave out cache, or ask for 'onnxruntime'.")

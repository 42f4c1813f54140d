"""AOTInductor as an engine of the runtime: the packages that `mmalign export --formats onnx,aoti` puts into a bundle.

A package is machine code for one kind of processor. It has no nodes to count and takes no other graph; its parity is
recorded and held like that of the .onnx files. Inputs of another rank or size are not noticed by the code itself: what
goes in comes from the bundle's own preprocessing and tokenizer.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch._inductor.cpu_vec_isa import x86_isa_checker
from torch._inductor.package.package import load_package

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.held import Held
from mmalign_runtime.engine.providers import Provider, ProviderChoice, ResolvedProvider
from mmalign_runtime.engine.session import (
    ComputePrecision,
    Feeds,
    Model,
    NodeGroup,
    SessionOptions,
    one_line,
    refuse_cache,
    run_failed,
)
from mmalign_runtime.errors import BundleError, EmbedderStateError, ProviderError
from mmalign_runtime.spec import AOTINDUCTOR, Artifact, BundleSpec, Precision

_PLACE = "AOTInductor CPU"
_MODEL_NAME = "model"
_AGAIN = "export the bundle on this machine: `mmalign export RUN --formats onnx,aoti --out BUNDLE`"


class AotInductorEngine:
    """AOTInductor packages in PyTorch: float32 on the CPU, and only where a bundle has them."""

    name = "aotinductor"
    runs_onnx = False

    def version(self) -> str:
        """Return PyTorch's version, which runs the packages."""
        return str(torch.__version__).partition("+")[0]

    def resolve_provider(self, asked: Provider) -> ResolvedProvider:
        """Return "cpu". Raises ProviderError for what is neither that nor "auto"."""
        if asked not in ("auto", "cpu"):
            raise ProviderError(
                f"provider {asked!r} was asked for, and engine 'aotinductor' runs on the CPU. Ask for provider 'cpu', "
                "or for engine 'onnxruntime'."
            )
        return "cpu"

    def artifact(self, spec: BundleSpec, tower: str, precision: ComputePrecision) -> Artifact:
        """Return the tower's package. Raises BundleError when there is none, ProviderError when it is not fp32."""
        if precision != "fp32":
            raise ProviderError(f"engine 'aotinductor' has no precision {precision!r}, only fp32. Ask for that.")
        if not spec.offered(tower=tower, engine=AOTINDUCTOR):
            raise BundleError(f"the {tower} tower has no AOTInductor package. To have one, {_AGAIN}.")
        return spec.artifact(tower, precision, AOTINDUCTOR)

    def variant_id(self, spec: BundleSpec, precision: ComputePrecision) -> str:
        """Return the id of the packages: other files than the .onnx ones, so other last digits."""
        return spec.variant_id(cast("Precision", precision), AOTINDUCTOR)

    def open(self, model: Model, options: SessionOptions) -> AotInductorSession:
        """Load a package. Raises as AotInductorSession does."""
        return AotInductorSession(model, options)


class AotInductorSession:
    """One package, loaded. `run` is safe to call from many threads at once.

    PyTorch has one number of threads for the whole process: the session that is loaded last sets it, for itself, for
    those before it and for whatever else runs on PyTorch here. Kernels that the package brings were compiled for the
    number of threads that its exporter had.
    """

    def __init__(self, model: Model, options: SessionOptions) -> None:
        """Load the package.

        Raises BundleError when it is none or was built for another kind of processor, EmbedderStateError in a child
        that was forked after PyTorch ran in its parent, ProviderError when it is to be kept in the cache.
        """
        refuse_cache("aotinductor", options)
        _check_process(model.name)
        self.name = model.name
        self.options = options
        self._input_names = model.input_names
        torch.set_num_threads(options.pool.num_threads)
        with _as_file(model.source) as path:
            _check_machine(path, model.name)
            # As many runs at once as the pool lets go on.
            self._package = Held(load_package(path, _MODEL_NAME, num_runners=options.pool.num_runs), model.name)
        self._turn = options.pool.turn if options.takes_turns else nullcontext

    @property
    def num_runs(self) -> int:
        """One: a run takes all of PyTorch's threads."""
        return 1

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the package and return its only output, float32, in memory of its own.

        Raises EngineError when PyTorch gives up, EmbedderStateError after `close` and in a forked child.
        """
        package = self._package.get()
        try:
            with self._turn(), torch.inference_mode():
                output: torch.Tensor = package(*(_tensor(feeds[name]) for name in self._input_names))
                return cast("NDArray[np.float32]", output.numpy())
        except RuntimeError as error:
            raise run_failed(self.name, feeds, error) from error

    def choices(self) -> tuple[ProviderChoice, ...]:
        """Return where the package runs, and with how many of PyTorch's threads at present."""
        return (ProviderChoice(_PLACE, {"torch.get_num_threads": str(torch.get_num_threads())}),)

    def placement(self) -> tuple[NodeGroup, ...]:
        """Return nothing: a package is one piece of machine code."""
        return ()

    def close(self) -> None:
        """Let go of the package. A run that is going on ends first."""
        self._package.close()


_torch_ran_in: set[int] = set()


def _check_process(name: str) -> None:
    """Remember that PyTorch runs in this process, and refuse a fork of one where it ran."""
    if _torch_ran_in - {os.getpid()}:  # OpenMP's threads stayed in the parent, and a run would wait for them
        raise EmbedderStateError(
            f"{name} cannot be loaded in a fork of a process that ran AOTInductor. "
            "Start workers with multiprocessing's 'spawn', or load nothing before the fork."
        )
    _torch_ran_in.add(os.getpid())


def _check_machine(path: str, name: str) -> None:
    """Raise BundleError unless the package was built for a processor like this one; nothing of it is run yet."""
    try:
        built = torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(path, _MODEL_NAME)  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise BundleError(
            f"{name} is not an AOTInductor package that PyTorch {torch.__version__} reads: "
            f"{one_line(error)} To have one, {_AGAIN}."
        ) from error
    here = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": platform.system().lower(), "AOTI_MACHINE": platform.machine()}
    differ = [f"{built[key]} (here: {value})" for key, value in here.items() if key in built and built[key] != value]
    offered = {word.upper() for word in x86_isa_checker()}
    needed = set(built.get("AOTI_CPU_ISA", "").split())
    if offered and (missing := sorted(needed - offered)):
        differ.append(f"{', '.join(missing)} (here: {', '.join(sorted(offered))})")
    if differ:
        raise BundleError(
            f"{name} was built for another kind of machine, with {'; '.join(differ)}. Use engine 'onnxruntime', or "
            f"{_AGAIN}."
        )


@contextmanager
def _as_file(source: FileSource) -> Iterator[str]:
    """Give the package as a file: PyTorch's loader takes no bytes."""
    if isinstance(source, Path):
        yield str(source)
        return
    with tempfile.NamedTemporaryFile(suffix=".pt2") as file:
        file.write(source)
        file.flush()
        yield file.name


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    # PyTorch warns of memory that may not be written to, as some callers' arrays are.
    return torch.from_numpy(array if array.flags.writeable else array.copy())

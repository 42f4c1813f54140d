"""OpenVINO on the CPU: the bundle's own .onnx files, in float32 or, where the processor has it, in bfloat16.

Sizes that change from call to call stay dynamic: a model compiled for one batch size and length is 3 to 20% quicker,
and costs a second set of weights and 0.1 to 0.9 s for each size.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.config import BFLOAT16, ComputePrecision, Provider, ResolvedProvider
from mmalign_runtime.engine.external_data import check_external
from mmalign_runtime.engine.held import Held
from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.engine.session import (
    Feeds,
    Model,
    NodeGroup,
    SessionOptions,
    one_line,
    refuse_cache,
    run_failed,
)
from mmalign_runtime.errors import BundleError, BundleFeatureError, MissingDependencyError, ProviderError
from mmalign_runtime.once import Once
from mmalign_runtime.spec import Artifact, BundleSpec

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, InferRequest

_DEVICE = "CPU"
_PLACE = "OpenVINO CPU"
_INSTALL = "pip install 'mmalign-runtime[openvino]'"
_TELEMETRY = "openvino_telemetry"
# Kernels are made for every new shape of an operator's inputs. By themselves OpenVINO keeps 5,000 for each model, and
# oneDNN below it 1,024 of its own: memory grows for as long as texts bring new shapes. To be watched with
# `python -m benchmarks.reliability memory --engine openvino`.
KERNELS_KEPT = 64
PRIMITIVES_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_PRIMITIVES_KEPT = "128"
# What a compiled graph lists beside the nodes that compute.
_PASSIVE = frozenset({"Const", "Input", "Output"})


class OpenVinoEngine:
    """OpenVINO: what onnxruntime runs on the CPU, and bf16, which computes the fp32 files in bfloat16."""

    name = "openvino"
    runs_onnx = True

    def version(self) -> str:
        """Return OpenVINO's version. Raises MissingDependencyError."""
        return str(import_openvino().__version__).partition("-")[0]

    def resolve_provider(self, asked: Provider) -> ResolvedProvider:
        """Return "cpu". Raises ProviderError for what is neither that nor "auto"."""
        if asked not in ("auto", "cpu"):
            raise ProviderError(
                f"provider {asked!r} was asked for, and engine 'openvino' runs on the CPU. Ask for provider 'cpu', or "
                "for engine 'onnxruntime'."
            )
        return "cpu"

    def artifact(self, spec: BundleSpec, tower: str, precision: ComputePrecision) -> Artifact:
        """Return the .onnx file. Raises BundleError, and ProviderError for bf16 on a processor without it."""
        if precision != BFLOAT16:
            return spec.artifact(tower, precision)
        can = openvino_core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in can:
            raise ProviderError(
                f"precision 'bf16' was asked for, and this processor has {', '.join(can)}. Ask for fp32 or int8."
            )
        return spec.artifact(tower, "fp32")

    def variant_id(self, spec: BundleSpec, precision: ComputePrecision) -> str:
        """Return the id of that precision's files; of the fp32 ones, under another name, for bf16."""
        if precision != BFLOAT16:
            return spec.variant_id(precision)
        return f"{BFLOAT16}-{spec.variant_id('fp32').partition('-')[2]}"

    def open(self, model: Model, options: SessionOptions) -> OpenVinoSession:
        """Load an .onnx file. Raises as OpenVinoSession does."""
        return OpenVinoSession(model, options)


class OpenVinoSession:
    """One .onnx file, compiled by OpenVINO. `run` is safe to call from many threads at once."""

    def __init__(self, model: Model, options: SessionOptions) -> None:
        """Compile the model.

        Raises MissingDependencyError, BundleError when it cannot be compiled, BundleIntegrityError when it keeps
        weights in a file that is not the bundle's, BundleFeatureError when it does so in an archive, ProviderError
        when it is to be kept in the cache.
        """
        refuse_cache("openvino", options)
        check_external(model)
        if model.external and not isinstance(model.source, Path):
            raise BundleFeatureError(
                f"{model.name} keeps weights in another file, which OpenVINO reads from a folder alone. Unpack the "
                "bundle (`mmalign unpack`), or ask for engine 'onnxruntime'."
            )
        self.name = model.name
        self.options = options
        self._config = _config(model.precision, options)
        self._loaded = Held(_Loaded(model, self._config), model.name)
        self._turn = options.pool.turn if options.takes_turns else nullcontext

    @property
    def num_runs(self) -> int:
        """One: there is one stream, which keeps all threads busy."""
        return 1

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the model and return its only output, float32, in memory of its own.

        Raises EngineError when OpenVINO gives up, EmbedderStateError after `close` and in a forked child.
        """
        loaded = self._loaded.get()
        try:
            with self._turn(), loaded.request() as request:
                # The request's own memory is written again by the next run, so the output is copied.
                outputs = request.infer(dict(feeds), share_inputs=True, share_outputs=False)
                return cast("NDArray[np.float32]", outputs[0])
        except RuntimeError as error:  # the only error that OpenVINO raises
            raise run_failed(self.name, feeds, error) from error

    def choices(self) -> tuple[ProviderChoice, ...]:
        """Return the device, with the options it was given."""
        return (ProviderChoice(_PLACE, self._config),)

    def placement(self) -> tuple[NodeGroup, ...]:
        """Return how many nodes of which operator there are after compilation, most first."""
        graph = self._loaded.get().compiled.get_runtime_model()
        counts = Counter(str(node.get_rt_info()["layerType"].value) for node in graph.get_ops())
        return tuple(NodeGroup(_PLACE, name, count) for name, count in counts.most_common() if name not in _PASSIVE)

    def close(self) -> None:
        """Let go of the model and its memory. A run that is going on ends first."""
        self._loaded.close()


class _Loaded:
    """A compiled model, and requests: one run at a time each, made when all others are busy."""

    def __init__(self, model: Model, config: dict[str, str]) -> None:
        core = openvino_core()
        source = str(model.source) if isinstance(model.source, Path) else model.source
        # A file with weights is read, not mapped: written to later, it would change what is served.
        core.set_property({"ENABLE_MMAP": not model.external})
        try:
            self.compiled: CompiledModel = core.compile_model(core.read_model(source), _DEVICE, config)
        except RuntimeError as error:
            version = OpenVinoEngine().version()
            raise BundleError(f"{model.name} cannot be loaded by OpenVINO {version}: {one_line(error)}") from error
        self._idle: deque[InferRequest] = deque()

    @contextmanager
    def request(self) -> Iterator[InferRequest]:
        """Give a request that nobody else uses, for the block."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            yield request
        finally:
            self._idle.append(request)


def openvino_core() -> Core:
    """Return the process's only OpenVINO core, made by the first caller and never given up.

    On a processor with AMX each core gives its thread a signal stack, and puts back the one before when it goes. Of two
    cores that do not go last in, first out, that one is gone already: the next signal ends the process (OpenVINO
    2026.4). Raises MissingDependencyError, and EmbedderStateError in a fork of the process that made it.
    """
    return _core.get().get()


def import_openvino() -> ModuleType:
    """Import OpenVINO. Raises MissingDependencyError naming the install."""
    try:
        with _hidden(_TELEMETRY):  # its import sends an event to its makers, if it can import what sends it
            import openvino
    except ImportError as error:
        raise MissingDependencyError(f"engine 'openvino' is not installed. Run `{_INSTALL}`.") from error
    module: ModuleType = openvino
    return module


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let nobody import the module `name` in the block, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast("ModuleType", None)
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _made_core() -> Held[Core]:
    ov = import_openvino()
    core = ov.Core()
    # oneDNN reads its variable once, with its first primitive. The oneDNN of another library here, PyTorch's, is not to
    # find it set; what the caller set stays.
    if PRIMITIVES_VARIABLE not in os.environ:
        os.environ[PRIMITIVES_VARIABLE] = _PRIMITIVES_KEPT
        try:
            _run_a_primitive(ov, core)
        finally:
            del os.environ[PRIMITIVES_VARIABLE]
    return Held(core, "OpenVINO")


def _run_a_primitive(ov: ModuleType, core: Core) -> None:
    rows = ov.opset8.parameter([-1, 16], np.float32)
    model = ov.Model([ov.opset8.matmul(rows, np.ones((16, 16), np.float32), False, False)], [rows])
    core.compile_model(model, _DEVICE).create_infer_request().infer({0: np.ones((2, 16), np.float32)})


_core = Once(_made_core)


def _config(precision: ComputePrecision, options: SessionOptions) -> dict[str, str]:
    return {
        # Left to itself, OpenVINO computes in bfloat16 wherever the processor has it...
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BFLOAT16 else "f32",
        # ... and rounds the activations of layers whose weights alone are quantized.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "INFERENCE_NUM_THREADS": str(options.pool.num_threads),
        # One stream with all threads: two streams of half the threads each gave one caller half the speed.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Two sessions or two containers that pin their threads pin them to the same cores.
        "ENABLE_CPU_PINNING": "NO",
        "CPU_RUNTIME_CACHE_CAPACITY": str(KERNELS_KEPT),
    }

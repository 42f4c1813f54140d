"""The default engine: one ONNX graph in onnxruntime. The only place that creates onnxruntime sessions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.config import BFLOAT16, ComputePrecision, Provider, ResolvedProvider
from mmalign_runtime.engine.external_data import check_external
from mmalign_runtime.engine.held import Held
from mmalign_runtime.engine.host_memory import HostMemory
from mmalign_runtime.engine.optimized import GRAPH_NAME, WEIGHTS_NAME, OptimizedGraph, check_sha256
from mmalign_runtime.engine.providers import (
    ProviderChoice,
    import_onnxruntime,
    ort_name,
    provider_choices,
    resolve_provider,
)
from mmalign_runtime.engine.runs import PlainRuns, Runs, SizedRuns, varies_in_its_batch_alone
from mmalign_runtime.engine.session import (
    ExternalFile,
    Feeds,
    Model,
    NodeGroup,
    SessionOptions,
    run_failed,
)
from mmalign_runtime.errors import BundleError, EngineError, ProviderError
from mmalign_runtime.spec import Artifact, BundleSpec, Precision

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from onnxruntime import SessionOptions as OrtOptions

_ERRORS_ONLY = 3
# Smaller weights stay in the graph: a tensor in the file beside it costs more than it saves.
_MAPPED_FROM = "1024"
# Towers with more convolutions than that have sessions for a few batch sizes on CUDA. A transformer of patches has one.
_FEW_CONVOLUTIONS = 4
# As quick as without a bound for one item after another, and the processors are given up sooner to whoever needs them.
_SPIN_US = "1000"


class OnnxRuntimeEngine:
    """onnxruntime: every precision that a bundle has a file of, every provider that it was built with."""

    name = "onnxruntime"
    runs_onnx = True

    def version(self) -> str:
        """Return onnxruntime's version. Raises MissingDependencyError."""
        return str(import_onnxruntime().__version__)

    def resolve_provider(self, asked: Provider) -> ResolvedProvider:
        """Return the provider to use; "auto" takes CUDA where it is. Raises ProviderError."""
        return resolve_provider(asked)

    def artifact(self, spec: BundleSpec, tower: str, precision: ComputePrecision) -> Artifact:
        """Return the .onnx file of that precision. Raises BundleError, and ProviderError for bf16."""
        if precision == BFLOAT16:
            raise ProviderError(
                "onnxruntime has no precision 'bf16': it computes a file as it is written. Ask for engine 'openvino', "
                f"or for one of {', '.join(spec.precisions())}."
            )
        return spec.artifact(tower, precision)

    def variant_id(self, spec: BundleSpec, precision: ComputePrecision) -> str:
        """Return the id of that precision's files, as the spec has it."""
        return spec.variant_id(cast("Precision", precision))

    def open(self, model: Model, options: SessionOptions) -> OnnxSession:
        """Load an .onnx file, or the optimised graph that is kept of it. Raises as OnnxSession does.

        With `options.cache`, raises EngineError when the graph cannot be kept, BundleIntegrityError when the file is
        not the one that the bundle lists, ProviderError on another provider than the CPU.
        """
        if not options.cache:
            return OnnxSession(model.source, model.name, options, model.external)
        if options.provider != "cpu":
            reason = f"optimised graphs are kept for provider 'cpu', and {options.provider!r} was asked for"
            raise ProviderError(f"{reason}. Leave out cache.")
        return OnnxSession(self._kept(model, options), model.name, options, is_kept=True)

    def _kept(self, model: Model, options: SessionOptions) -> Path:
        assert model.sha256, "a graph is kept under the hash of its file"
        graph = OptimizedGraph(model.sha256, self.version(), [each.sha256 for each in model.external])

        def write(folder: Path) -> None:
            check_external(model)
            keeping = _keeping_options(import_onnxruntime(), options, folder)
            _create(model.source, model.name, options, keeping, model.external)
            # Also where the bundle was opened without its hashes: another model kept under this one's would stay.
            check_sha256(model.source, model.name, model.sha256)
            for each in model.external:
                check_sha256(each.view, each.location, each.sha256)

        return graph.path() or graph.make(write)


class OnnxSession:
    """An onnxruntime session over one graph. `run` is safe to call from many threads at once."""

    def __init__(
        self,
        source: FileSource,
        name: str,
        options: SessionOptions,
        external: tuple[ExternalFile, ...] = (),
        *,
        is_kept: bool = False,
    ) -> None:
        """Load the graph from a path or from bytes; `name` stands for it in messages.

        `external` are the files that it may keep weights in: they are read from memory, whatever path it names.
        `is_kept` says that it is one of OptimizedGraph's: as onnxruntime optimised it, with weights beside it.
        Raises ProviderError when the provider did not take the graph, BundleError when the file is not an ONNX model,
        BundleIntegrityError when it keeps weights elsewhere.
        """
        model = Model(source, name, (), external=external)
        if not is_kept:
            check_external(model)
        self.name = name
        self.options = options
        session, self._runs = _open(model, options, is_kept=is_kept)
        self._session = Held(session, name)
        # Runs on a device queue there; only on the CPU do they compete for the caller's own cores.
        takes_turns = options.takes_turns and options.provider == "cpu"
        self._turn = options.pool.turn if takes_turns else nullcontext

    @property
    def num_runs(self) -> int:
        """As many as there are threads on the CPU, since no run keeps them all busy; one on a device."""
        return self.options.pool.num_runs if self.options.provider == "cpu" else 1

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the graph and return its only output, float32.

        Raises EngineError when onnxruntime gives up, EmbedderStateError after `close` and in a forked child.
        """
        session = self._session.get()
        try:
            with self._turn():
                return self._runs.run(session, feeds)
        except _engine_errors(import_onnxruntime()) as error:
            raise run_failed(self.name, feeds, error) from error

    def choices(self) -> tuple[ProviderChoice, ...]:
        """Return the providers that the graph was offered to, in order."""
        return _choices(self.options)

    def placement(self) -> tuple[NodeGroup, ...]:
        """Return which execution provider took how many nodes of which operator, most first."""
        return _placement(self._session.get())

    def close(self) -> None:
        """Let go of the graph and its memory. A run that is going on ends first."""
        self._runs.close()
        self._session.close()


def _create(
    source: FileSource, name: str, options: SessionOptions, ort_options: OrtOptions, external: tuple[ExternalFile, ...]
) -> InferenceSession:
    ort = import_onnxruntime()
    providers = [(choice.name, choice.options) for choice in _choices(options)]
    model = str(source) if isinstance(source, Path) else source
    if external:
        ort_options.add_external_initializers_from_files_in_memory(
            [each.location for each in external],
            [each.view for each in external],
            [len(each.view) for each in external],
        )
    try:
        # Without enable_fallback=0, an error of CUDA during a run would make onnxruntime go on on the CPU.
        session = ort.InferenceSession(
            model, ort_options, providers=providers, enable_fallback=0, disabled_optimizers=_left_out(options)
        )
        session._model_bytes = None  # kept for the fallback that is switched off: all weights of an archive once more
        return session
    except _engine_errors(ort) as error:
        raise BundleError(f"{name} cannot be loaded by onnxruntime {ort.__version__}: {error}") from error


def _open(model: Model, options: SessionOptions, *, is_kept: bool) -> tuple[InferenceSession, Runs]:
    """Return a session and the way to run it."""
    ort, name = import_onnxruntime(), model.name

    def create() -> InferenceSession:
        chosen = _kept_options(ort, options) if is_kept else _ort_options(ort, options)
        return _create(model.source, name, options, chosen, model.external)

    session = create()
    first = session.get_providers()[0]
    if first != ort_name(options.provider):
        raise ProviderError(
            f"provider {options.provider!r} was asked for and onnxruntime fell back to {first} for {name}: "
            "its libraries did not load, or it found no device. `pip install 'mmalign-runtime[gpu]'` brings CUDA's "
            "libraries that fit; for others, see what onnxruntime logged. Or ask for 'cpu'."
        )
    if options.provider != "cuda" or not _plans_convolutions(session):
        return session, PlainRuns()
    try:
        return session, SizedRuns(session, create, name, HostMemory(options.provider))
    except _engine_errors(ort) as error:
        raise EngineError(f"{name} failed on a batch of zeros: {error}") from error


def _plans_convolutions(session: InferenceSession) -> bool:
    """Return whether a change of the batch size costs more than a few plans."""
    convolutions = sum(group.num_nodes for group in _placement(session) if "Conv" in group.operator)
    return convolutions > _FEW_CONVOLUTIONS and varies_in_its_batch_alone(session)


def _placement(session: InferenceSession) -> tuple[NodeGroup, ...]:
    counts: dict[tuple[str, str], int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            key = (subgraph.ep_name, node.op_type)
            counts[key] = counts.get(key, 0) + 1
    groups = (NodeGroup(provider, operator, count) for (provider, operator), count in counts.items())
    return tuple(sorted(groups, key=lambda group: -group.num_nodes))


def _left_out(options: SessionOptions) -> list[str]:
    # onnxruntime 1.32's kernel for a skip and its normalisation in one is five times slower on the CPU than the two.
    # And it rounds the weights of a convolution that an eight-bit file leaves in float32 between two others.
    return ["SkipLayerNormFusion", "WeightBiasQuantization"] if options.provider == "cpu" else []


def _choices(options: SessionOptions) -> tuple[ProviderChoice, ...]:
    return provider_choices(options.provider, options.pool.num_threads, allow_tf32=options.allow_tf32)


def _kept_options(ort: ModuleType, options: SessionOptions) -> OrtOptions:
    found = _ort_options(ort, options)
    found.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return found


def _keeping_options(ort: ModuleType, options: SessionOptions, folder: Path) -> OrtOptions:
    found = _ort_options(ort, options)
    found.optimized_model_filepath = str(folder / GRAPH_NAME)
    found.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS_NAME)
    found.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", _MAPPED_FROM)
    # In the order in which the kernels read them: nothing is left to be copied, by no process that maps them.
    found.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    return found


def _ort_options(ort: ModuleType, options: SessionOptions) -> OrtOptions:
    found: OrtOptions = ort.SessionOptions()
    found.intra_op_num_threads = options.pool.num_threads
    found.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.allow_spinning)))
    if options.allow_spinning:
        found.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    found.enable_mem_pattern = options.reuse_memory_plan
    found.enable_cpu_mem_arena = options.keep_memory
    found.log_severity_level = _ERRORS_ONLY
    # Lets `placement` say which provider took which node.
    found.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return found


def _engine_errors(ort: ModuleType) -> tuple[type[Exception], ...]:
    # onnxruntime's errors share no root but Exception.
    state = ort.capi.onnxruntime_pybind11_state
    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (RuntimeError, MemoryError, ValueError, *(getattr(state, name) for name in (*names, "RuntimeException")))

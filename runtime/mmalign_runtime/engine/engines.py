"""Engines by name: the runtime's own, and those that other distributions add.

A distribution adds an engine with an entry point of the group "mmalign.engines", named after the engine, that makes an
`Engine` when it is called. So mmalign-export, which has torch, brings AOTInductor, and the runtime imports none of it.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.config import DEFAULT_ENGINE, RuntimeConfig
from mmalign_runtime.engine.onnxruntime import OnnxRuntimeEngine
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Engine, ExternalFile, Model, Session, SessionOptions
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import BundleFeatureError, MissingDependencyError, ProviderError
from mmalign_runtime.spec import ONNX, Artifact

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "mmalign.engines"

_OWN = (DEFAULT_ENGINE, "openvino")
# Engines of mmalign's other distributions, and how to get them.
_INSTALL = {"aotinductor": "pip install 'mmalign-export[cpu]'"}


def find_engine(name: str) -> Engine:
    """Return the engine of that name; its library may still be missing, which its methods say.

    Raises ProviderError when the name is not known, MissingDependencyError when the distribution that brings it is not
    installed or does not load.
    """
    if name == DEFAULT_ENGINE:
        return OnnxRuntimeEngine()
    if name == "openvino":
        from mmalign_runtime.engine.openvino import OpenVinoEngine

        return OpenVinoEngine()
    from importlib.metadata import entry_points  # takes longer than everything else here, and few need it

    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name in found:
        return _load(found[name])
    if name in _INSTALL:
        raise MissingDependencyError(f"engine {name!r} is not installed. Run `{_INSTALL[name]}`.")
    known = ", ".join((*_OWN, *sorted({*_INSTALL, *found})))
    raise ProviderError(f"engine {name!r} is not known; choose one of {known}.")


def installed_engines() -> tuple[str, ...]:
    """Return the names of the engines whose libraries are here, the default first."""
    from importlib.metadata import entry_points

    others = sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})
    return tuple(name for name in (*_OWN, *others) if _is_installed(name))


def resolve_options(config: RuntimeConfig) -> SessionOptions:
    """Return a config with what it leaves to this machine decided: the provider, and the number of threads.

    Raises ProviderError where the engine or provider is not there, MissingDependencyError when the engine is not
    installed.
    """
    provider = find_engine(config.engine).resolve_provider(config.provider)
    num_threads = config.num_threads or available_threads()
    resolved = config.fields() | {"provider": provider, "num_threads": num_threads}
    return SessionOptions(pool=thread_pool(num_threads), **resolved)


def open_session(bundle: Bundle, tower: str, input_names: tuple[str, ...], options: SessionOptions) -> Session:
    """Open one tower of a bundle, or another of its graphs, with the engine of `options`.

    Raises as `Engine.artifact` and `Engine.open` do, and BundleIntegrityError when the file was replaced since the
    bundle was opened.
    """
    engine = find_engine(options.engine)
    artifact = engine.artifact(bundle.spec, tower, options.precision)
    name = artifact.file
    model = Model(
        bundle.source(name),
        f"{bundle.path / name}",
        input_names,
        options.precision,
        bundle.spec.files[name],
        _external(bundle, artifact),
    )
    session = engine.open(model, options)
    if options.provider == "cpu" and options.precision == "int8":
        from mmalign_runtime.engine.eight_bits import warn_of_saturation

        warn_of_saturation(artifact.quantization and artifact.quantization.weight_level)
    for each in (name, *artifact.external):
        bundle.check_unchanged(each)  # nor while it was loaded
    return session


def _external(bundle: Bundle, artifact: Artifact) -> tuple[ExternalFile, ...]:
    folder = posixpath.dirname(artifact.file)  # what a model says of other files, it says from its own folder
    return tuple(
        ExternalFile(posixpath.relpath(name, folder or "."), bundle.view(name), bundle.spec.files[name])
        for name in artifact.external
    )


def _load(entry: EntryPoint) -> Engine:
    try:
        engine: Engine = entry.load()()
    except ImportError as error:
        raise MissingDependencyError(
            f"engine {entry.name!r} is installed and does not load: {error}. Install again what brings it."
        ) from error
    return engine


def _is_installed(name: str) -> bool:
    try:
        find_engine(name).version()
    except MissingDependencyError:
        return False
    return True


def check_supported(artifact: Artifact) -> None:
    """Raise BundleFeatureError where a tower's artifact needs what is not here."""
    if artifact.external and artifact.engine != ONNX:
        raise BundleFeatureError(
            f"the {artifact.tower} tower's {artifact.engine} package keeps weights beside it, in "
            f"{', '.join(artifact.external)}, and this version loads such packages from one file. Ask for engine "
            "'onnxruntime', or update: `pip install -U mmalign-runtime`."
        )

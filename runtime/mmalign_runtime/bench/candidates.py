"""What a comparison tries: every engine with every precision it can compute, then other threads and ways to wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.config import BFLOAT16, DEFAULT_ENGINE, ComputePrecision, RuntimeConfig, RuntimeFields, configured
from mmalign_runtime.engine.engines import find_engine, installed_engines
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import BundleError, ProviderError
from mmalign_runtime.spec import Modality

# In the place of an engine's name: all that are installed.
ALL_ENGINES = "all"


def first_candidates(bundle: Bundle, fixed: RuntimeFields, towers: Sequence[Modality]) -> list[RuntimeConfig]:
    """Return each engine with each precision it has of these towers, on all threads; the default engine comes first.

    What is `fixed` is the same in all. Raises ProviderError when nothing can run the bundle so, and for an engine that
    is not known, MissingDependencyError for one that is not installed.
    """
    asked, precision = fixed.get("engine") or DEFAULT_ENGINE, fixed.get("precision")
    engines = installed_engines() if asked == ALL_ENGINES else (asked,)
    precisions: tuple[ComputePrecision, ...] = (
        (*bundle.spec.precisions(), BFLOAT16) if precision is None else (precision,)
    )
    base = configured(RuntimeConfig(num_threads=available_threads()), fixed)
    tried = [msgspec.structs.replace(base, engine=each, precision=p) for each in engines for p in precisions]
    found = [config for config in tried if _can_run(bundle, config, towers)]
    if not found:
        how = f"precision {precision}, " if precision else ""
        raise ProviderError(
            f"no engine of {', '.join(engines)} can run {bundle.path} with {how}provider {base.provider}. The bundle "
            f"offers {', '.join(bundle.spec.precisions())}; ask for one of these."
        )
    return found


def settings(config: RuntimeConfig, fixed: RuntimeFields) -> Iterator[RuntimeConfig]:
    """Yield the ways to run a candidate: fewer threads, and waiting busily, where neither is fixed."""
    available = config.num_threads or 1
    powers = [1 << exponent for exponent in range(available.bit_length()) if 1 << exponent < available]
    for num_threads in (available,) if fixed.get("num_threads") else (*powers, available):
        # One thread waits for no other, and only onnxruntime can be told how to wait.
        can_spin = config.engine == DEFAULT_ENGINE and num_threads > 1 and fixed.get("allow_spinning") is None
        for allow_spinning in (False, True) if can_spin else (config.allow_spinning,):
            yield msgspec.structs.replace(config, num_threads=num_threads, allow_spinning=allow_spinning)


def preference(config: RuntimeConfig, bundle: Bundle) -> tuple[bool, int, bool, int]:
    """Return what decides between equals: threads that sleep, exact numbers, the default engine, and few threads.

    Sorts the preferred one first.
    """
    offered = bundle.spec.precisions()
    # Most exact first: bfloat16 keeps 8 bits, float16 11.
    exact = (*(each for each in offered if each != "int8"), BFLOAT16, "int8")
    return (
        config.allow_spinning,
        exact.index(config.precision),
        config.engine != DEFAULT_ENGINE,
        config.num_threads or 0,
    )


def _can_run(bundle: Bundle, config: RuntimeConfig, towers: Sequence[Modality]) -> bool:
    engine = find_engine(config.engine)
    engine.version()  # one that was asked for by name is installed
    try:
        engine.resolve_provider(config.provider)
        for tower in towers:
            engine.artifact(bundle.spec, tower, config.precision)
    except (BundleError, ProviderError):
        return False
    return True

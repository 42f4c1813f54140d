"""What could be asked of `Embedder.load` here: every engine, every precision it can compute, threads and waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import BFLOAT16, DEFAULT_ENGINE, ComputePrecision
from mmalign_runtime.errors import BundleError, ProviderError
from mmalign_runtime.spec import Modality


class Candidate(msgspec.Struct, frozen=True):
    """One set of arguments of `Embedder.load`."""

    engine: str
    precision: ComputePrecision
    num_threads: int
    allow_spinning: bool = False

    def __str__(self) -> str:
        threads = f"{self.num_threads} thread{'' if self.num_threads == 1 else 's'}"
        return f"{self.engine} {self.precision}, {threads}{', spinning' if self.allow_spinning else ''}"


def basic_candidates(
    bundle: Bundle,
    engines: Sequence[str],
    towers: Sequence[Modality],
    *,
    precision: ComputePrecision | None,
    num_threads: int,
) -> list[Candidate]:
    """Return every engine with every precision it has of these towers (or the one asked for), waiting asleep.

    bf16 is tried wherever an engine computes the fp32 files so.
    """
    precisions: tuple[ComputePrecision, ...] = (precision,) if precision else (*bundle.spec.precisions(), BFLOAT16)
    return [
        Candidate(engine, each, num_threads)
        for engine in engines
        for each in precisions
        if _has(bundle, engine, towers, each)
    ]


def settings(candidate: Candidate, *, num_threads: int | None) -> Iterator[Candidate]:
    """Yield the other ways to run a candidate: fewer threads (unless asked for so many), and waiting busily."""
    for threads in _thread_counts(candidate.num_threads) if num_threads is None else (num_threads,):
        # One thread waits for nobody, and only onnxruntime can be told how to wait.
        can_spin = candidate.engine == DEFAULT_ENGINE and threads > 1
        for allow_spinning in (False, True) if can_spin else (False,):
            other = Candidate(candidate.engine, candidate.precision, threads, allow_spinning)
            if other != candidate:
                yield other


def preference(candidate: Candidate, precisions: Sequence[ComputePrecision]) -> tuple[bool, int, bool, int]:
    """Return what decides between equals: the default engine, exact numbers, threads that sleep, and few of them.

    Sorts the preferred one first. `precisions` are in order, most exact first.
    """
    exactness = precisions.index(candidate.precision)
    return candidate.allow_spinning, exactness, candidate.engine != DEFAULT_ENGINE, candidate.num_threads


def supports(provider: Provider, engine: str) -> bool:
    """Return whether the engine has the provider."""
    try:
        find_engine(engine).resolve_provider(provider)
    except ProviderError:
        return False
    return True


def _has(bundle: Bundle, engine: str, towers: Sequence[Modality], precision: ComputePrecision) -> bool:
    try:
        for tower in towers:
            find_engine(engine).artifact(bundle.spec, tower, precision)
    except (BundleError, ProviderError):
        return False
    return True


def _thread_counts(available: int) -> list[int]:
    """Return the powers of two below what is available, and that."""
    powers = [1 << exponent for exponent in range(available.bit_length()) if 1 << exponent < available]
    return [*powers, available]

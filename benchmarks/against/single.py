"""One image or text at a time, quiet and beside a busy process.

python -m benchmarks.against.single --out single.json --reference bundle

The embedder with threads that sleep (its default), that spin for at most a millisecond (`allow_spinning=True`), for
shorter or as long as onnxruntime's own do, and on one thread, beside onnxruntime used directly with its defaults (the
bundle's own graphs, the same decoder and tokenizer) and fastembed with its defaults, where `make against-setup`
installed it. Each is a process of its own: in one process the threads of one that spins take the processors from the
next. Every way embeds the same item once a round, in an order drawn anew, after an untimed call of its own. The busy
process is a loop in Python that no processor is set aside for.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from typer import Option

from benchmarks.against.entries import PLAIN, Entry, python_of
from benchmarks.against.models import DEMO, REFERENCE, ModelSource, prepare_files
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Kind, Measure, Setting
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import CACHE, FASTEMBED_PYTHON, PHOTO, ROOT
from benchmarks.harness.timing import interleaved, paired_speedups
from mmalign_runtime.engine.threads import available_threads

ITEMS: dict[Kind, str] = {
    "image": str(PHOTO),
    "text": "a photo of a dog that runs over the beach",
}
DIRECTLY, FASTEMBED, SLEEPING, SPINNING = "onnxruntime directly", "fastembed", "sleeping", "spinning 1 ms"
ONE_THREAD = "sleeping, 1 thread"
_BUSY_PAUSE_S = 1.0
# fastembed resizes with Pillow, and not as the towers were trained: close is what its vectors can be.
_CLOSE = {FASTEMBED: 0.99}


class Single(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way on one kind of item: percentiles in milliseconds, and the median ratio to onnxruntime, round by round."""

    model: str
    kind: Kind
    is_busy: bool
    way: str
    p50_ms: float
    p90_ms: float
    times_directly: float


def entries() -> list[Entry]:
    spins_us = {SLEEPING: 0, ONE_THREAD: 0, "spinning 0.2 ms": 200, SPINNING: 1000, "spinning unbounded": None}
    ours = [Entry(name, name, "mmalign", PLAIN, spin_us=spin_us) for name, spin_us in spins_us.items()]
    fastembed = [Entry(FASTEMBED, FASTEMBED, "fastembed", PLAIN)] if FASTEMBED_PYTHON.is_file() else []
    return [*ours, Entry(DIRECTLY, DIRECTLY, "graphs", PLAIN), *fastembed]


def check(processes: Mapping[str, PeerProcess], request: Measure) -> None:
    """Raise SystemExit where a way gives other vectors than onnxruntime."""
    expected = processes[DIRECTLY].vectors(request)
    for name, process in processes.items():
        if (process.vectors(request) * expected).sum(axis=1).min() < _CLOSE.get(name, 0.999999):
            raise SystemExit(f"{name} gives other vectors than {DIRECTLY}: its speed would mean nothing.")


def summary(model: str, kind: Kind, times: Mapping[str, list[float]], *, is_busy: bool) -> list[Single]:
    found = []
    for name, laps in times.items():
        p50, p90 = 1000 * np.percentile(laps, (50, 90))
        ratio = float(np.median(paired_speedups(laps, times[DIRECTLY])))
        found.append(Single(model, kind, is_busy, name, round(float(p50), 2), round(float(p90), 2), round(ratio, 3)))
    return found


@contextmanager
def busy() -> Iterator[None]:
    """Keep a process computing for the block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        time.sleep(_BUSY_PAUSE_S)
        try:
            yield
        finally:
            process.kill()


def measure(model: str, bundle: Path, num_rounds: int) -> list[Single]:
    """Time all ways on one bundle, quiet and busy."""
    rng, found = random.Random(0), list[Single]()
    with ExitStack() as stack:
        processes = _start(model, bundle, stack)
        for kind, item in ITEMS.items():
            request = Measure(kind, (item,), Setting())
            check(processes, request)
            calls = {name: partial(process.median_s, request) for name, process in processes.items()}
            for is_busy in (False, True):
                with busy() if is_busy else nullcontext():
                    times = interleaved(calls, num_rounds, rng)
                found += summary(model, kind, times, is_busy=is_busy)
                print("\n".join(_line(one) for one in found[-len(processes) :]), file=sys.stderr, flush=True)
    return found


def main(
    out: Annotated[Path, Option(help="the JSON file that gets the results")],
    demo: Annotated[Path, Option(help="what `make demo` left")] = ROOT / "demo",
    reference: Annotated[Path | None, Option(help="a bundle of the reference architecture, timed as well")] = None,
    rounds: Annotated[int, Option(help="calls of each way")] = 200,
) -> None:
    watch = Watch()
    cases = measure(DEMO, demo / "bundle", rounds)
    if reference is not None:
        cases += measure(REFERENCE, reference, rounds)
    watch.write(out, cases=cases)


def _start(model: str, bundle: Path, stack: ExitStack) -> dict[str, PeerProcess]:
    CACHE.mkdir(parents=True, exist_ok=True)
    # No run: only PyTorch's peers take their weights from one.
    files = prepare_files(ModelSource(f"single_{model}", bundle, run=Path()), CACHE)
    found = {}
    for entry in entries():
        num_threads = 1 if entry.name == ONE_THREAD else available_threads()
        process = PeerProcess(entry, python_of(entry, FASTEMBED_PYTHON), files, num_threads, CACHE / "workers.log")
        found[entry.name] = stack.enter_context(process)
    return found


def _line(one: Single) -> str:
    state = "busy " if one.is_busy else "quiet"
    return (
        f"{one.model:9} {one.kind:5} {state} {one.way:22} {one.p50_ms:8.2f} {one.p90_ms:8.2f} {one.times_directly:6.3f}"
    )


if __name__ == "__main__":
    run(main)

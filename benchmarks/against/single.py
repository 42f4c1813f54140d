"""One image or text at a time, quiet and beside a busy process.

python -m benchmarks.against.single --bundle demo/bundle

The embedder with threads that sleep, that spin for a bounded while and that spin as long as onnxruntime does, on one
thread and on all, beside onnxruntime used directly with its defaults: the bundle's own graphs, the same decoder and
tokenizer. Every way takes the same item in turn, in an order drawn anew, after an untimed call of its own that wakes
its threads and puts the others' to sleep. The busy process is a loop in Python that no processor is set aside for.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine import onnxruntime as engine
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageTower

PHOTO = Path(__file__).resolve().parents[2] / "export/mmalign_export/photo/grace_hopper.jpg"
TEXT = "a photo of a dog that runs over the beach"
DIRECTLY = "onnxruntime directly"
SPINS_US = (200, 1000, 5000)
_BUSY_PAUSE_S = 1.0

Way = Callable[[], NDArray[np.float32]]


class Seen(msgspec.Struct, frozen=True):
    """One way on one kind of item: percentiles in milliseconds, and the median ratio to onnxruntime, turn by turn."""

    kind: str
    is_busy: bool
    way: str
    p50_ms: float
    p90_ms: float
    times_directly: float


@contextmanager
def spinning(duration_us: int | None) -> Iterator[None]:
    """Let sessions loaded in the block spin for so many microseconds; None leaves the embedder's own choice."""
    own = engine._ort_options
    if duration_us is not None:
        engine._ort_options = lambda ort, options: _bounded(own(ort, options), duration_us)
    try:
        yield
    finally:
        engine._ort_options = own


def ways_of(bundle: Path, kind: str) -> dict[str, Way]:
    """Return every way to embed the one item, loaded."""
    found: dict[str, Way] = {}
    choices = [("sleeping", None, False, None), ("sleeping, 1 thread", None, False, 1), ("spinning", None, True, None)]
    choices += [(f"spinning {each} us", each, True, None) for each in SPINS_US]
    for name, duration_us, allow_spinning, num_threads in choices:
        with spinning(duration_us):
            embedder = Embedder.load(bundle, allow_spinning=allow_spinning, num_threads=num_threads)
        found[name] = _ours(embedder, kind)
    found[DIRECTLY] = _directly(Embedder.load(bundle, lazy=True), kind)
    return found


def take_turns(ways: dict[str, Way], num_turns: int, rng: random.Random) -> dict[str, list[float]]:
    """Time every way once a turn, milliseconds."""
    expected = ways[DIRECTLY]()
    for name, way in ways.items():
        if not np.allclose(way(), expected, atol=1e-5):
            raise SystemExit(f"{name} gives other vectors than {DIRECTLY}: its speed would mean nothing.")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_turns):
        for name in rng.sample(list(ways), len(ways)):
            ways[name]()
            began = time.perf_counter()
            ways[name]()
            times[name].append((time.perf_counter() - began) * 1000)
    return times


def summary(kind: str, times: dict[str, list[float]], *, is_busy: bool) -> list[Seen]:
    """Return what was seen of every way."""
    directly = np.array(times[DIRECTLY])
    found = []
    for name, laps in times.items():
        p50, p90 = np.percentile(laps, (50, 90))
        ratio = float(np.median(np.array(laps) / directly))
        found.append(Seen(kind, is_busy, name, round(float(p50), 2), round(float(p90), 2), round(ratio, 3)))
    return found


@contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Keep so many processes computing for the block."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spin, daemon=True) for _ in range(num_processes)]
    for process in processes:
        process.start()
    time.sleep(_BUSY_PAUSE_S if processes else 0)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def main() -> None:
    """Time quiet and busy, print a table, and end with a line of JSON."""
    parser = argparse.ArgumentParser(description="One image or text at a time, beside onnxruntime used directly.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    rng, seen = random.Random(0), list[Seen]()
    for kind in ("image", "text"):
        ways = ways_of(options.bundle, kind)
        for num_busy in (0, 1):
            with busy(num_busy):
                times = take_turns(ways, options.turns, rng)
            seen += summary(kind, times, is_busy=num_busy > 0)
            for one in seen[-len(ways) :]:
                state = "busy " if one.is_busy else "quiet"
                figures = f"{one.p50_ms:8.2f} {one.p90_ms:8.2f} {one.times_directly:6.3f}"
                print(f"{kind:5} {state} {one.way:22} {figures}", file=sys.stderr)
    card = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": cpu_name(), "threads": available_threads()}
    card["command"] = f"python -m benchmarks.against.single --bundle {options.bundle.name} --turns {options.turns}"
    print(json.dumps({"card": card, "seen": msgspec.to_builtins(seen)}))


def _bounded(options: engine.OrtOptions, duration_us: int) -> engine.OrtOptions:
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(duration_us))
    return options


def _ours(embedder: Embedder, kind: str) -> Way:
    data = PHOTO.read_bytes()
    if kind == "image":
        return lambda: embedder.encode_image([data], batch_size=1)
    return lambda: embedder.encode_text([TEXT], batch_size=1)


def _directly(embedder: Embedder, kind: str) -> Way:
    """Use the bundle's graphs in sessions with onnxruntime's defaults."""
    import onnxruntime as ort

    bundle, data = embedder.bundle, PHOTO.read_bytes()
    tower = ort.InferenceSession(str(bundle.source(bundle.spec.artifact(kind).file)))
    if kind == "image":
        files = bundle.spec.tower("image", ImageTower)
        prepare = ort.InferenceSession(str(bundle.source(files.preprocess)))

        def image() -> NDArray[np.float32]:
            (pixel_values,) = prepare.run(None, {"pixels": decode_image(data, files.spec)})
            found: NDArray[np.float32] = tower.run(None, {files.inputs.pixel_values: pixel_values})[0]
            return found

        return image
    tokenizer, inputs = embedder.text.tokenizer, embedder.text.inputs

    def text() -> NDArray[np.float32]:
        tokens = tokenizer.encode([TEXT])
        feeds = inputs.feeds(tokens.input_ids, tokens.attention_mask)
        found: NDArray[np.float32] = tower.run(None, feeds)[0]
        return found

    return text


def _spin() -> None:
    number = 0
    while True:
        number = (number + 1) % 1000


if __name__ == "__main__":
    main()

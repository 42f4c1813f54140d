"""Resident memory of OpenVINO over texts of ever new shapes: python -m benchmarks.reliability growing_shapes

OpenVINO keeps kernels that it made for a shape, and oneDNN below it keeps primitives: as many as two settings of the
runtime say. Processes with other values of the first, and one with both left to their libraries, embed the same texts,
some calls each in turn. The level after the first 200 calls is what the rest is held to, the pace that of the others'
own values.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from benchmarks.harness.places import bundle_at_hand
from benchmarks.harness.processes import resident_mb
from benchmarks.reliability.memory import varied_texts
from benchmarks.reliability.record import Row, record
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine import openvino

NUM_CALLS = 5000
EVERY, WARM = 100, 200
OWN_DEFAULT = 5000
MAX_GROWTH, MAX_COST = 0.05, 0.03
_MOST_TEXTS = 8


class Watched(msgspec.Struct):
    """One value of the property: seconds of every so many calls, and resident memory after them."""

    num_kept: int
    seconds: list[float] = []
    resident_mb: list[float] = []

    @property
    def growth(self) -> float:
        """How far memory went from the level after the warm-up, as a share of it."""
        first = self.resident_mb[WARM // EVERY - 1]
        return max(self.resident_mb[WARM // EVERY - 1 :]) / first - 1


def work(bundle: Path, num_kept: int, pipe: Connection) -> None:
    """Embed some calls' texts whenever asked, and answer with the seconds and the level."""
    openvino.KERNELS_KEPT = num_kept
    if num_kept == OWN_DEFAULT:
        os.environ[openvino.PRIMITIVES_VARIABLE] = "1024"  # oneDNN's own
    embedder = Embedder.load(bundle, engine="openvino", towers=("text",))
    words, rng = varied_texts(0), random.Random(0)
    while (num_calls := pipe.recv()) > 0:
        calls = [[next(words) for _ in range(rng.randint(1, _MOST_TEXTS))] for _ in range(num_calls)]
        began = perf_counter()
        for call in calls:
            embedder.encode_text(call)
        pipe.send((perf_counter() - began, resident_mb()))


def watch(bundle: Path, kept: Sequence[int], num_calls: int) -> list[Watched]:
    """Let a process for each value embed the same texts, in turns."""
    context = multiprocessing.get_context("spawn")
    found, pipes = [Watched(num_kept) for num_kept in kept], []
    for one in found:
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(bundle, one.num_kept, theirs), daemon=True).start()
        pipes.append(ours)
    for number in range(num_calls // EVERY):
        turns = list(zip(found, pipes, strict=True))
        for one, pipe in turns if number % 2 else reversed(turns):
            pipe.send(EVERY)
            seconds, level = pipe.recv()
            one.seconds.append(seconds)
            one.resident_mb.append(level)
        print((number + 1) * EVERY, [round(one.resident_mb[-1]) for one in found], file=sys.stderr)
    for pipe in pipes:
        pipe.send(0)
    return found


def pace(one: Watched, other: Watched) -> float:
    """Return how many times the time of `other` one value took: the median over the turns after the warm-up."""
    warm = slice(WARM // EVERY, None)
    return float(np.median(np.array(one.seconds[warm]) / np.array(other.seconds[warm])))


def rows_of(found: Sequence[Watched], chosen: int) -> list[Row]:
    """Return the lines of the table: the value that the runtime sets, and the others for comparison."""
    ours = next(one for one in found if one.num_kept == chosen)
    theirs = next(one for one in found if one.num_kept == OWN_DEFAULT)
    shown = [
        f"{one.num_kept:,} kept: {one.resident_mb[WARM // EVERY - 1]:.0f} to {one.resident_mb[-1]:.0f} MB, "
        f"{pace(one, theirs):.2f} times the time"
        for one in found
    ]
    num_calls = len(ours.seconds) * EVERY
    good = int(ours.growth <= MAX_GROWTH) + int(pace(ours, theirs) <= 1 + MAX_COST)
    return [Row(f"OpenVINO over {num_calls:,} calls of varied texts, memory and pace", 2, good, "; ".join(shown))]


def run(bundle: Path | None = None, calls: int = NUM_CALLS, kept: list[int] | None = None) -> None:
    """Embed, watch, and record; `kept` are other numbers of kernels to compare with."""
    if calls < 2 * WARM:
        raise SystemExit(f"--calls must be at least {2 * WARM}")
    chosen = openvino.KERNELS_KEPT
    numbers = dict.fromkeys([chosen, *(kept or ()), OWN_DEFAULT])
    found = watch(bundle or bundle_at_hand(), list(numbers), calls)
    record("growing_shapes", rows_of(found, chosen), {"every": EVERY, "watched": found}, is_kept=calls >= NUM_CALLS)

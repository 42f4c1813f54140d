"""Latency of the reference architecture (ResNet-50 and BERT-base) in every engine, interleaved in one run.

python benchmarks/reference/run.py --out benchmarks/reference/results
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast, get_args

import msgspec

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.harness.environment import Watch
from benchmarks.harness.results import command_line, write_result
from benchmarks.reference.engines import EngineName, build_engine, build_onnx_engine, prepare_torch
from benchmarks.reference.interleave import Engine, Schedule, take_turns, warm_up
from benchmarks.reference.report import ReferenceReport, cpu_slug, engine_timings, table_of
from benchmarks.reference.workload import Workload, reference_workload
from mmalign_export.parity import ABS_BOUND
from mmalign_runtime.engine.threads import available_threads

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
BATCH_SIZES = (1, 8, 32)
NUM_ROUNDS = 20
# Calls of one image or text scatter most and cost least: they get more turns a round.
TURNS = {1: 4, 8: 2}
# The first call compiles, the second plans memory; the third is like all that follow.
NUM_WARMUP = 3
# A quick run shows that everything works; its figures mean nothing.
QUICK_BATCH_SIZES = (1, 2)
QUICK_NUM_ROUNDS = 2


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: `engines`, or BERT in onnxruntime by `opsets` where any are named. The first is the baseline."""

    out_dir: Path
    batch_sizes: tuple[int, ...]
    num_rounds: int
    engines: tuple[EngineName, ...]
    opsets: tuple[int, ...]
    command: str


def run_reference(options: Options) -> ReferenceReport:
    """Build the engines and measure them."""
    num_threads = available_threads()
    prepare_torch(num_threads)
    watch = Watch(options.command, num_threads)
    with tempfile.TemporaryDirectory() as folder:
        workload = reference_workload(options.batch_sizes)
        engines = _build_engines(options, workload, Path(folder), num_threads)
        batches = [batch for batch in workload.batches if any(engine.tower == batch.tower for engine in engines)]
        print(f"warming up {len(engines)} engines")
        laps = warm_up(engines, batches, num_calls=NUM_WARMUP, bound=ABS_BOUND)
        print(f"measuring {options.num_rounds} rounds")
        watch.restart()
        take_turns(engines, laps, Schedule(options.num_rounds, TURNS))
    baseline = engines[0].name
    return ReferenceReport(
        environment=watch.card(),
        baseline=baseline,
        num_rounds=options.num_rounds,
        timings=engine_timings(laps, baseline),
    )


def publish(report: ReferenceReport, name: str, out_dir: Path) -> None:
    """Print a report, and write it to `out_dir` as JSON."""
    print(table_of(report))
    write_result(report, out_dir / f"{name}.json")
    print(msgspec.json.encode(report).decode())


def _build_engines(options: Options, workload: Workload, work_dir: Path, num_threads: int) -> list[Engine]:
    builders: list[Callable[[], Engine]] = []
    for opset in options.opsets:
        tower = workload.towers["text"]
        name = f"onnx-opset{opset}"
        builders.append(partial(build_onnx_engine, name, opset, "text", tower, work_dir, num_threads))
    for modality, tower in () if options.opsets else workload.towers.items():
        builders += [partial(build_engine, name, modality, tower, work_dir, num_threads) for name in options.engines]
    engines = []
    for build in builders:
        start = time.perf_counter()
        engines.append(build())
        print(f"built {engines[-1].name} {engines[-1].tower} in {time.perf_counter() - start:.1f} s")
    return engines


def _engine_names(text: str) -> tuple[EngineName, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(ENGINES):
        raise argparse.ArgumentTypeError(f"seen {text!r}, expected a comma-separated choice of {', '.join(ENGINES)}")
    return cast("tuple[EngineName, ...]", names)


def _opsets(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(opset) for opset in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"seen {text!r}, expected numbers such as 18,20,23") from None


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"seen {text!r}, expected a number of rounds, at least 1")
    return int(text)


def _parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(description="Time the reference architecture in every engine, interleaved.")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets CPU.json")
    parser.add_argument("--rounds", type=_rounds, help=f"rounds to measure; default {NUM_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="small batches, two rounds: shows that everything works")
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument("--engines", type=_engine_names, default=ENGINES, help=f"default {','.join(ENGINES)}")
    compared.add_argument("--opsets", type=_opsets, default=(), help="instead: BERT in onnxruntime, such as 18,20,23")
    parsed = parser.parse_args(arguments)
    return Options(
        out_dir=parsed.out,
        batch_sizes=QUICK_BATCH_SIZES if parsed.quick else BATCH_SIZES,
        num_rounds=parsed.rounds or (QUICK_NUM_ROUNDS if parsed.quick else NUM_ROUNDS),
        engines=parsed.engines,
        opsets=parsed.opsets,
        command=command_line("python benchmarks/reference/run.py", arguments),
    )


def main() -> None:
    options = _parse(sys.argv[1:])
    report = run_reference(options)
    suffix = "-opsets" if options.opsets else ""
    publish(report, cpu_slug(report.environment.cpu) + suffix, options.out_dir)


if __name__ == "__main__":
    main()

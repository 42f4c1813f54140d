"""Mutates the modules that judge, one thing at a time, and runs the tests that are about each: which notice?

A mutant is killed by a test that fails, or that no longer comes to an end. What survives needs a reason in
survivors.toml.

make mutation                                                installs cosmic-ray and runs this
python -m benchmarks.reliability mutation --only parity,spec   shows the survivors of some modules, and keeps nothing
"""

import sys
import tempfile
import time
import tomllib
from pathlib import Path

import msgspec

from benchmarks.harness.places import ROOT
from benchmarks.reliability.mutated import PASSED, TIMED_OUT, preload, run_afresh, run_in_place
from benchmarks.reliability.record import Found
from benchmarks.reliability.scores import Mutation, Score, Survivor, summary

SURVIVORS = Path(__file__).with_name("survivors.toml")


class Target(msgspec.Struct, frozen=True):
    """A module, and the tests that are about it, the quickest first."""

    module: str
    tests: tuple[str, ...]


_VERIFY = ("tests/runtime/verify/test_bounds.py", "tests/runtime/verify/test_verify.py")
_LOSSES = tuple(f"tests/mmalign/losses/test_{name}.py" for name in ("protocol", "infonce", "sigmoid"))
_VARIANT = "tests/export/quantization/test_variant_bounds.py"
TARGETS = (
    Target("mmalign_export.parity", ("tests/export/test_parity_bounds.py",)),
    *(
        Target(f"mmalign_runtime.verify.{name}", _VERIFY)
        for name in ("difference", "golden_cases", "invariance", "float32", "against", "report", "run")
    ),
    Target("mmalign_runtime.spec.image", ("tests/runtime/spec/test_image.py",)),
    Target("mmalign_runtime.spec.text", ("tests/runtime/spec/test_text.py",)),
    Target("mmalign_runtime.spec.bundle", ("tests/runtime/spec/test_bundle.py", "tests/runtime/spec/test_reading.py")),
    Target("mmalign_runtime.spec.reading", ("tests/runtime/spec/test_reading.py",)),
    Target("mmalign_runtime.spec.version1", ("tests/runtime/spec/test_version1.py",)),
    Target("mmalign_runtime.image.limits", ("tests/runtime/image/test_limits.py",)),
    Target("mmalign_runtime.unit_vectors", ("tests/runtime/test_unit_vectors.py",)),
    Target("mmalign_runtime.engine.threads", ("tests/runtime/engine/test_threads.py",)),
    Target("mmalign_runtime.engine.providers", ("tests/runtime/engine/test_providers.py",)),
    Target("mmalign_runtime.engine.runs", ("tests/runtime/engine/test_runs.py",)),
    *(Target(f"mmalign.losses.{name}", _LOSSES) for name in ("infonce", "sigmoid", "protocol")),
    Target("mmalign.figures.retrieval", ("tests/mmalign/figures/test_retrieval.py",)),
    Target("mmalign.data.split", ("tests/mmalign/data/test_split.py",)),
    Target("mmalign_export.quantization.budget", ("tests/export/quantization/test_budget.py",)),
    Target("mmalign_export.quantization.search", ("tests/export/quantization/test_search.py",)),
    Target("mmalign_export.quantization.report", ("tests/export/quantization/test_report.py",)),
    Target("mmalign_export.quantization.variant", (_VARIANT,)),
)


def source_of(module: str) -> Path:
    package = module.partition(".")[0]
    folder = {"mmalign_runtime": "runtime", "mmalign_export": "export"}.get(package, ".")
    return (ROOT / folder / module.replace(".", "/")).with_suffix(".py")


def mutate(target: Target, num_workers: int) -> tuple[Score, list[Survivor]]:
    """Run all mutants of a module. Raises RuntimeError where its tests fail without one."""
    from benchmarks.reliability.mutants import mutants_of  # needs cosmic-ray

    source = source_of(target.module).read_text(encoding="utf-8")
    tests = [ROOT / test for test in target.tests]
    mutants = mutants_of(source)
    statuses = run_in_place(target.module, source, [mutant.source for mutant in mutants], tests, num_workers)
    reasons, survivors = read_reasons(), []
    for each, status in zip(mutants, statuses, strict=True):
        reason = reasons.get((target.module, each.before, each.after), "")
        if status == PASSED and run_afresh(target.module, each.source, tests) == PASSED:
            survivors.append(Survivor(target.module, each.line, each.before, each.after, reason))
            print(f"{each.line}: {each.before}\n  -> {each.after}\n  {reason or 'NOT EXPLAINED'}", flush=True)
    score = Score(target.module, len(mutants), len(mutants) - len(survivors), statuses.count(TIMED_OUT))
    print(f"{score.module}: {score.num_killed} of {score.num_mutants} killed", flush=True)
    return score, survivors


def read_reasons() -> dict[tuple[str, str, str], str]:
    """Return why a mutant may survive, by module and by the line before and after."""
    entries = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["survivor"]
    return {(each["module"], each["before"], after): each["reason"] for each in entries for after in each["after"]}


def run(only: str = "", workers: int = 1) -> Found:
    """Run the mutants, so many children at once; the result is kept when it was all of them.

    `only` are ends of module names, joined by commas; nothing is kept then.
    """
    ends = tuple(f".{name}" for name in only.split(",")) if only else ("",)
    preload()
    start_s = time.monotonic()
    scores: list[Score] = []
    survivors: list[Survivor] = []
    with tempfile.TemporaryDirectory() as compiled:
        sys.dont_write_bytecode, sys.pycache_prefix = False, compiled  # tests are compiled once, not once a mutant
        for target in TARGETS:
            if target.module.endswith(ends):
                score, lived = mutate(target, workers)
                scores.append(score)
                survivors += lived
    found = Mutation(tuple(scores), tuple(survivors), round(time.monotonic() - start_s))
    return [summary(found)], found

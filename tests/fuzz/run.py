"""Fuzzes one target for a while and says what it met: `python tests/fuzz/run.py --target image --seconds 600`.

Needs atheris (the dev group has it, for Linux on x86-64 and Python up to 3.13). What a run adds to the corpus stays
in --work, so that a second run goes on from there; `--merge` takes over into the repository what adds coverage. Exit
code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec

ROOT = Path(__file__).resolve().parents[2]
HARNESS = Path(__file__).with_name("harness.py")
CORPUS = Path(__file__).with_name("corpus")
TARGETS = ("image", "bundle", "archive")

Kind = Literal["unnamed", "crash", "timeout", "oom"]

# The limits that decide what a hang and what too much memory is.
TIMEOUT_S = 10
RSS_LIMIT_MB = 2048
_MAX_INPUT_BYTES = 8192
# What is taken over into the repository is replayed by every test run, and cloned by everyone.
_MAX_KEPT_BYTES = 400
# The harness starts in a few seconds; a process that lives no longer than this three times over does not fuzz.
_STILLBORN_S = 5
_MAX_STILLBORN = 3


class Finding(msgspec.Struct, frozen=True):
    """An input that broke the promise: libFuzzer's kinds, or "unnamed" for an exception that is no named error."""

    kind: Kind
    path: str
    what: str


class FuzzReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what was executed, the branches covered (edges of Python code), and what was found."""

    target: str
    seconds: float
    executions: int
    coverage: int
    seeds: int
    new_entries: int
    findings: tuple[Finding, ...]


class _Lap(msgspec.Struct, frozen=True):
    """What one process of libFuzzer printed."""

    executions: int
    coverage: int
    tail: str


def fuzz(target: str, seconds: float, work: Path) -> FuzzReport:
    """Fuzz until the time is up, starting again after each finding that ends the process.

    `work` gets corpus/ (what was new) and findings/. Raises RuntimeError when the harness does not even start.
    """
    entries, findings = work / "corpus", work / "findings"
    for folder in (entries, findings):
        folder.mkdir(parents=True, exist_ok=True)
    num_before = len(list(entries.iterdir()))
    start_s = time.monotonic()
    executions = coverage = stillborn = 0
    while (left_s := seconds - (time.monotonic() - start_s)) >= 1:
        lap_start_s = time.monotonic()
        lap = _run(target, [str(entries), str(CORPUS / target)], findings, int(left_s))
        executions += lap.executions
        coverage = max(coverage, lap.coverage)
        stillborn = stillborn + 1 if time.monotonic() - lap_start_s < _STILLBORN_S else 0
        if stillborn == _MAX_STILLBORN or not lap.executions:
            raise RuntimeError(f"the harness of {target} ends at once:\n{lap.tail}")
    return FuzzReport(
        target=target,
        seconds=round(time.monotonic() - start_s, 1),
        executions=executions,
        coverage=coverage,
        seeds=len(list((CORPUS / target).iterdir())),
        new_entries=len(list(entries.iterdir())) - num_before,
        findings=_read_findings(findings),
    )


def merge(target: str, work: Path) -> int:
    """Take over into the repository's corpus what adds coverage to it and is small; return how many files that were."""
    before = {path.name for path in (CORPUS / target).iterdir()}
    (work / "findings").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as small:
        for path in (work / "corpus").iterdir():
            if path.stat().st_size <= _MAX_KEPT_BYTES:
                shutil.copy(path, small)
        _run(target, ["-merge=1", str(CORPUS / target), small], work / "findings", 0)
    return len({path.name for path in (CORPUS / target).iterdir()} - before)


def _run(target: str, arguments: Sequence[str], findings: Path, seconds: int) -> _Lap:
    command = [
        *(sys.executable, str(HARNESS), target, str(findings), *arguments),
        *(f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_LIMIT_MB}", f"-max_len={_MAX_INPUT_BYTES}"),
        *(f"-max_total_time={seconds}", f"-artifact_prefix={findings}/", "-print_final_stats=1", "-verbosity=1"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
    log = done.stderr
    counts = [int(count) for count in re.findall(r"stat::number_of_executed_units:\s*(\d+)", log)]
    covered = [int(count) for count in re.findall(r"cov: (\d+)", log)]
    return _Lap(counts[-1] if counts else 0, max(covered, default=0), (done.stdout + log)[-2000:])


def _read_findings(folder: Path) -> tuple[Finding, ...]:
    found = []
    for path in sorted(folder.iterdir()):
        kind = path.name.split("-")[0]
        if path.suffix == ".txt" or kind == "slow":  # an explanation; libFuzzer's "slow-unit" is no hang
            continue
        explained = path.with_name(f"{path.name}.txt")
        what = explained.read_text(encoding="utf-8").strip() if explained.exists() else kind
        found.append(msgspec.convert({"kind": kind, "path": str(path), "what": what}, Finding))
    return tuple(found)


def describe(report: FuzzReport) -> str:
    """Return the report in a few lines for people."""
    lines = [
        f"{report.target}: {report.executions} executions in {report.seconds:.0f} s, {report.coverage} branches, "
        f"{report.seeds} seeds, {report.new_entries} new corpus entries, {len(report.findings)} findings"
    ]
    lines += [f"  {finding.kind}: {finding.what} ({finding.path})" for finding in report.findings]
    return "\n".join(lines)


def main() -> None:
    """Fuzz, print, and say by the exit code whether anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz one target.")
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--work", type=Path, help="keeps new entries and findings; default: a temporary folder")
    parser.add_argument("--merge", action="store_true", help="afterwards take over what adds coverage")
    parser.add_argument("--record", action="store_true", help="write benchmarks/reliability/results/fuzz_TARGET.json")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of text")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))
    report = fuzz(options.target, options.seconds, work)
    if options.merge:
        print(f"taken over: {merge(options.target, work)} files", file=sys.stderr)
    if options.record:
        _record(report)
    print(msgspec.json.encode(report).decode() if options.json else describe(report))
    sys.exit(1 if report.findings else 0)


def _record(report: FuzzReport) -> None:
    """Keep the report for docs/reliability.md, without the folders of this machine."""
    from benchmarks.reliability.record import Row, record

    findings = tuple(msgspec.structs.replace(found, path=Path(found.path).name) for found in report.findings)
    what = {"image": "image bytes", "bundle": "bundle.json", "archive": ".mmalign files"}[report.target]
    measured = (
        f"{len(findings)} findings in {report.seconds:.0f} s; {report.coverage:,} branches covered, "
        f"{report.new_entries:,} new corpus entries"
    )
    row = Row(f"fuzzing of {what}", report.executions, report.executions - len(findings), measured)
    record(f"fuzz_{report.target}", [row], msgspec.structs.replace(report, findings=findings))


if __name__ == "__main__":
    main()

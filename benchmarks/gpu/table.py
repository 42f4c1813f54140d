"""One table of what `run.sh` measured: python -m benchmarks.gpu.table OUT"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from mmalign_runtime.bench import BenchReport
from mmalign_runtime.verify import VerifyReport


def lines(report: VerifyReport, bench: BenchReport) -> list[str]:
    """Return the table in Markdown."""
    card, runtime = bench.environment, report.runtime
    worst = max(case.max_abs_difference for case in report.cases)
    num_equal = sum(case.passed for case in report.cases)
    rows = [f"| parity with PyTorch, largest difference | {worst:.1e} | {num_equal} of {len(report.cases)} cases |"]
    for check in report.checks:
        verdict = "holds" if check.passed else "FAILS"
        rows.append(f"| {check.name} | {check.max_abs_difference:.1e} | {verdict}: {check.detail} |")
    for timing in bench.timings:
        what = f"{timing.kind}, {timing.stage}, batch {timing.batch_size}"
        rows.append(f"| {what} | {timing.p50_ms:.2f} ms (p99 {timing.p99_ms:.2f}) | {timing.items_per_s:.0f} items/s |")
    head = f"{card.date} {card.cpu}, {runtime.provider}, {runtime.variant_id}, onnxruntime {card.onnxruntime}"
    return [head, "", "| what | figure | |", "|---|---|---|", *rows]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = msgspec.json.decode((folder / "verify.json").read_bytes(), type=VerifyReport)
    measured = msgspec.json.decode((folder / "bench.json").read_bytes(), type=BenchReport)
    print("\n".join(lines(found, measured)))

"""One table of what `run.sh` measured: python -m benchmarks.gpu.table OUT"""

from pathlib import Path

from benchmarks.harness.command import run
from benchmarks.harness.markdown import table
from benchmarks.harness.results import read_result
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.verify import VerifyReport


def main(folder: Path) -> None:
    """Print the table of a folder's verify.json and bench.json."""
    report, bench = read_result(folder / "verify.json", VerifyReport), read_result(folder / "bench.json", BenchReport)
    card, runtime = bench.environment, report.runtime
    worst = max(case.max_abs_difference for case in report.cases)
    num_equal = sum(case.passed for case in report.cases)
    rows = [["parity with PyTorch, largest difference", f"{worst:.1e}", f"{num_equal} of {len(report.cases)} cases"]]
    for check in report.checks:
        verdict = "holds" if check.passed else "FAILS"
        rows.append([check.name, f"{check.max_abs_difference:.1e}", f"{verdict}: {check.detail}"])
    for timing in bench.timings:
        what = f"{timing.kind}, {timing.stage}, batch {timing.batch_size}"
        rows.append([what, f"{timing.p50_ms:.2f} ms (p99 {timing.p99_ms:.2f})", f"{timing.items_per_s:.0f} items/s"])
    print(f"{card.date} {card.cpu}, {runtime.provider}, {runtime.variant_id}, onnxruntime {card.onnxruntime}\n")
    print(table(("what", "figure", ""), rows))


if __name__ == "__main__":
    run(main)

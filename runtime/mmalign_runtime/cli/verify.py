"""`mmalign verify`: prove a bundle on this machine before it serves. Exit code 0 equal, 1 differs, 2 cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mmalign_runtime.cli.options import (
    BundleArgument,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    ThreadsOption,
    as_precision,
    as_provider,
)

if TYPE_CHECKING:
    from mmalign_runtime.verify import CaseResult, VerifyReport

EXIT_DIFFERS = 1


def verify(
    bundle: BundleArgument,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Run the bundle's golden cases here and compare each stage with the PyTorch reference."""
    import msgspec

    from mmalign_runtime.verify import verify_bundle

    report = verify_bundle(
        bundle, provider=as_provider(provider), precision=as_precision(precision), num_threads=threads
    )
    if json:
        print(msgspec.json.encode({"passed": report.passed, **msgspec.to_builtins(report)}).decode())
    else:
        print_report(report)
    if not report.passed:
        raise typer.Exit(EXIT_DIFFERS)


def print_report(report: VerifyReport) -> None:
    """Print the report as a table, the verdict last."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    runtime = report.runtime
    table = Table(title=f"{runtime.bundle}  {runtime.provider} {runtime.precision}, {runtime.num_threads} threads")
    for column in ("case", "kind", "cosine", "max abs", "verdict"):
        table.add_column(column, justify="right" if column in ("cosine", "max abs") else "left")
    for case in report.cases:
        table.add_row(case.name, case.kind, f"{case.cosine:.7f}", f"{case.max_abs_difference:.1e}", _verdict(case))
    console.print(table)
    failed = [case for case in report.cases if not case.passed]
    bounds = f"cosine at least {report.bounds.cosine_bound}, max abs at most {report.bounds.abs_bound:g}"
    if failed:
        console.print(f"[red]differs[/]: {len(failed)} of {len(report.cases)} cases outside the bounds ({bounds})")
    else:
        console.print(f"[green]equal[/]: all {len(report.cases)} cases inside the bounds ({bounds})")


def _verdict(case: CaseResult) -> str:
    if case.passed:
        return f"[green]equal[/] {case.detail}".strip()
    return f"[red]{case.stage}[/]: {case.detail}"

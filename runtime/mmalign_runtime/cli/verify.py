"""`mmalign verify`: prove a bundle on this machine before it serves. Exit code 0 equal, 1 differs, 2 cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmalign_runtime.verify import CaseResult, VerifyReport

EXIT_DIFFERS = 1


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    provider: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8, as the bundle offers.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="Threads; default: what the container allows.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the bundle's golden cases here and compare each stage with the PyTorch reference."""
    import msgspec

    from mmalign_runtime.cli.options import as_precision, as_provider
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

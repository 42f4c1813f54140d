"""`mmalign verify`: prove a bundle on this machine before it serves. Exit code 0 equal, 1 differs, 2 cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, JsonOption, as_towers
from mmalign_runtime.cli.terminal import cell, new_table

if TYPE_CHECKING:
    from rich.table import Table

    from mmalign_runtime.verify import Against, VerifyReport

EXIT_DIFFERS = 1


@takes_config
def verify(
    bundle: BundleArgument,
    towers: Annotated[str, typer.Option(help="image, text, or both with a comma: those that serve.")] = "image,text",
    *,
    asked: Loading,
    against: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Another bundle that must give the same vectors.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare a bundle here with PyTorch, stage by stage, and check that vectors do not depend on their batch."""
    import msgspec

    from mmalign_runtime.verify import verify_bundle

    report = verify_bundle(bundle, profile=asked.profile, towers=as_towers(towers), against=against, **asked.fields)
    if json:
        typer.echo(msgspec.json.encode({"passed": report.passed, **msgspec.to_builtins(report)}))
    else:
        print_report(report)
    if not report.passed:
        raise typer.Exit(EXIT_DIFFERS)


def print_report(report: VerifyReport) -> None:
    """Print the cases, the checks and the comparison as tables, the verdict last."""
    from rich.console import Console

    console = Console()
    console.print(_cases(report))
    console.print(_checks(report))
    failed = [case for case in report.cases if not case.passed]
    bounds = _bounds(report)
    if failed:
        console.print(f"[red]differs[/]: {len(failed)} of {len(report.cases)} cases outside the bounds ({bounds})")
    else:
        console.print(f"[green]equal[/]: all {len(report.cases)} cases inside the bounds ({bounds})")
    broken = [check.name for check in report.checks if not check.passed]
    if broken:
        console.print(f"[red]differs[/]: {len(broken)} of {len(report.checks)} checks failed: {', '.join(broken)}")
    else:
        console.print(f"[green]holds[/]: all {len(report.checks)} checks ({report.seconds:.1f} s in all)")
    if report.against:
        console.print(_against(report.against))


def _bounds(report: VerifyReport) -> str:
    """Return the bounds as words: once where all towers have the same."""
    words = {
        tower: f"cosine at least {each.cosine_bound}, max abs at most {each.abs_bound:g}"
        for tower, each in report.bounds.items()
    }
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{tower}: {each}" for tower, each in words.items())


def _cases(report: VerifyReport) -> Table:
    runtime = report.runtime
    chosen = f"{runtime.engine} {runtime.provider} {runtime.precision}, {runtime.num_threads} threads"
    columns, numbers = ("case", "kind", "cosine", "max abs", "verdict"), ("cosine", "max abs")
    table = new_table(*columns, title=f"{cell(runtime.bundle)}  {chosen}", numbers=numbers)
    for case in report.cases:
        detail = cell(case.detail)
        verdict = f"[green]equal[/] {detail}" if case.passed else f"[red]{case.stage}[/]: {detail}"
        table.add_row(case.name, case.kind, f"{case.cosine:.7f}", f"{case.max_abs_difference:.1e}", verdict.strip())
    return table


def _checks(report: VerifyReport) -> Table:
    table = new_table("check", "what", "max abs", "bound", "verdict", title="checks", numbers=("max abs", "bound"))
    for check in report.checks:
        verdict = "[green]holds[/]" if check.passed else "[red]fails[/]"
        has_figures = check.name != "placement"
        figures = (f"{check.max_abs_difference:.1e}", f"{check.bound:.0e}") if has_figures else ("", "")
        table.add_row(check.name, cell(check.detail), *figures, verdict)
    return table


def _against(against: Against) -> Table:
    table = new_table(title=f"against {cell(against.bundle)}")
    table.add_row("space", "the same" if against.is_same_space else f"another: {against.space_id}")
    table.add_row("lowest cosine", f"{against.min_cosine:.7f} ({cell(against.farthest)})")
    table.add_row("max abs", f"{against.max_abs_difference:.1e}")
    table.add_row("verdict", "[green]equal[/]" if against.passed else "[red]differs[/]")
    return table

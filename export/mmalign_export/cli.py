"""The verbs that mmalign-export adds to the command line: export, import and quantize.

torch is imported only when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mmalign.cpu import importing_torch
from mmalign_export.cli_import import import_source
from mmalign_runtime.cli.options import as_towers, one_of
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.config import MOST_THREADS

if TYPE_CHECKING:
    from mmalign_export.to_bundle import Format


def register(app: typer.Typer) -> None:
    """Add the verbs to the `mmalign` command."""
    app.command("export")(export)
    app.command("import")(import_source)
    app.command("quantize")(quantize)


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a folder, or a .mmalign file.")] = Path(
        "bundle"
    ),
    formats: Annotated[str, typer.Option(help="onnx, and with commas aoti and compile.")] = "onnx",
    checkpoint: Annotated[str, typer.Option(help="best or last.")] = "best",
    opset_version: Annotated[int | None, typer.Option(help="ONNX opset of the towers: 18, the default, to 25.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
) -> None:
    """Export a run to a bundle, and prove it equal to PyTorch."""
    with importing_torch():
        from mmalign.progress import log_to_stderr
        from mmalign_export.sources import SourceOptions
        from mmalign_export.to_bundle import export as export_source
        from mmalign_export.to_onnx import OPSET_VERSION

    log_to_stderr("mmalign_export")
    known = one_of(checkpoint, ("best", "last"), "--checkpoint")
    spec = export_source(
        run,
        out,
        options=SourceOptions(checkpoint="best" if known == "best" else "last"),
        formats=_formats(formats),
        opset_version=OPSET_VERSION if opset_version is None else opset_version,
        force=force,
    )
    say(f"{out}: {len(spec.files)} files, {spec.embed_dim} dimensions, space {spec.space_id}")


def quantize(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a folder or a .mmalign file.", show_default=False)],
    evaluation: Annotated[
        str | None,
        typer.Option("--eval", help="Pairs to measure recall on, or a configuration. An import may do without."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Pairs to calibrate int8 on, or a training configuration. An import may do without."),
    ] = None,
    precision: Annotated[str, typer.Option(help="int8, or fp16 for GPUs.")] = "int8",
    budget: Annotated[
        str | None,
        typer.Option(help="What may be lost: recall@1=0.5,cosine=0.999; default: recall@1=0.5, or cosine=0.995."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Another place for the result; default: BUNDLE.")] = None,
    engine: Annotated[str, typer.Option(help="The engine to be fast with.")] = "onnxruntime",
    provider: Annotated[str, typer.Option(help="The provider to be fast on: cpu or cuda.")] = "cpu",
    towers: Annotated[str, typer.Option(help="image, text, or both with a comma.")] = "image,text",
    threads: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads; default: what is available.")
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, help="Images to measure recall on, at most.")] = 1000,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Add towers of fewer bits to a bundle: the fastest here that stay inside a budget of recall."""
    with importing_torch():
        from mmalign.progress import log_to_stderr

        log_to_stderr("mmalign_export")  # before the next imports: onnxruntime's quantizers set up the root logger
        import msgspec

        from mmalign_export.quantization import parse_budget
        from mmalign_export.quantization import quantize as add_quantized
        from mmalign_export.quantization.data import default_budget
        from mmalign_export.quantization.table import print_report

    _, report = add_quantized(
        bundle,
        out or bundle,
        calibration=calibration,
        evaluation=evaluation,
        budget=parse_budget(budget) if budget else default_budget(has_pairs=evaluation is not None),
        precision="fp16" if one_of(precision, ("int8", "fp16"), "--precision") == "fp16" else "int8",
        engine=engine,
        provider="cuda" if one_of(provider, ("cpu", "cuda"), "--provider") == "cuda" else "cpu",
        towers=as_towers(towers),
        num_threads=threads,
        max_images=max_images,
        force=force or out is None,
    )
    if json:
        typer.echo(msgspec.json.encode(report))
    else:
        print_report(report)


def _formats(words: str) -> tuple[Format, ...]:
    from mmalign_export.to_bundle import Format

    formats = (one_of(word.strip(), get_args(Format), "--formats") for word in words.split(","))
    return cast("tuple[Format, ...]", tuple(formats))

"""The verbs that mmalign-export adds to the command line: export, import (what it would choose: --explain), quantize.

torch is imported only when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import msgspec
import typer

from mmalign.cpu import importing_torch
from mmalign_runtime.cli.options import as_towers, one_of
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.config import MOST_THREADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmalign_runtime.spec import BundleSpec, Choice, ImportRecord

Orientation = Annotated[
    Literal["policy", "source"],
    typer.Option(help="policy: pictures are turned as EXIF says. source: as the library does."),
]
Alpha = Annotated[
    Literal["policy", "source"],
    typer.Option(help="policy: transparency is composited on white. source: as the library."),
]
Length = Annotated[
    Literal["real", "fixed"], typer.Option(help="real: texts at their own length. fixed: padded as trained.")
]
Activation = Annotated[
    Literal["", "gelu", "quick_gelu"], typer.Option(help="The activation of such a file: gelu or quick_gelu.")
]
Oversampling = Annotated[
    int, typer.Option(min=0, help="Decode large JPEGs at a scale that leaves so many times the side; 0: in full.")
]


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
        from mmalign_export.to_bundle import Format
        from mmalign_export.to_bundle import export as export_source
        from mmalign_export.to_onnx import OPSET_VERSION

    log_to_stderr("mmalign_export")
    words = (one_of(word.strip(), get_args(Format), "--formats") for word in formats.split(","))
    known = one_of(checkpoint, ("best", "last"), "--checkpoint")
    spec = export_source(
        run,
        out,
        options=SourceOptions(checkpoint="best" if known == "best" else "last"),
        formats=cast("tuple[Format, ...]", tuple(words)),
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
        from mmalign_export.quantization.budget import parse_budget
        from mmalign_export.quantization.data import default_budget
        from mmalign_export.quantization.run import quantize as add_quantized
        from mmalign_export.quantization.summary import print_report

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


def import_source(
    source: Annotated[
        str, typer.Argument(help="A folder, a file of weights, or KIND:NAME (open_clip:ViT-B-32).", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a folder, or a .mmalign file.")] = Path(
        "bundle"
    ),
    kind: Annotated[str | None, typer.Option(help="The kind of source; default: told from the place.")] = None,
    model: Annotated[str, typer.Option(help="The architecture of a file that holds weights alone.")] = "",
    activation: Activation = "",
    text: Annotated[str, typer.Option(help="The text tower's place, where it lies apart.")] = "",
    dim: Annotated[int | None, typer.Option(min=1, help="Components to keep, of a Matryoshka model.")] = None,
    orientation: Orientation = "policy",
    alpha: Alpha = "policy",
    length: Length = "real",
    jpeg_oversampling: Oversampling = 0,
    licence: Annotated[str, typer.Option(help="The licence of the weights, where the source does not say it.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Print every choice, and write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print choices and proof as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
) -> None:
    """Import a model of another library as a bundle, and prove it equal to that library."""
    with importing_torch():
        from mmalign.progress import log_to_stderr
        from mmalign_export.importing import import_model, read_import
        from mmalign_export.sources import SourceOptions

    log_to_stderr("mmalign_export")
    options = SourceOptions(
        model=model,
        activation=activation,
        text=text,
        dim=dim,
        orientation=orientation,
        alpha=alpha,
        length=length,
        jpeg_oversampling=jpeg_oversampling,
        licence=licence,
    )
    if explain:
        _show_choices(read_import(source, kind, options).choices, as_json=json)
    else:
        _show_bundle(out, import_model(source, out, kind=kind, options=options, force=force), as_json=json)


def _show_choices(choices: Sequence[Choice], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(choices))
        return
    width = max((len(choice.what) for choice in choices), default=0)
    for choice in choices:
        typer.echo(f"{choice.what:<{width}}  {choice.value}  ({choice.origin})")


def _show_bundle(out: Path, spec: BundleSpec, *, as_json: bool) -> None:
    record = spec.provenance.imported
    if as_json:
        typer.echo(msgspec.json.encode({"space_id": spec.space_id, "embed_dim": spec.embed_dim, "imported": record}))
        return
    if record is not None:
        _show_proof(record)
    say(f"{out}: {len(spec.files)} files, {spec.embed_dim} dimensions, space {spec.space_id}")


def _show_proof(record: ImportRecord) -> None:
    typer.echo(f"Proof against {record.reference}:")
    for stage in record.stages:
        cosine = "" if stage.lowest_cosine is None else f", lowest cosine {stage.lowest_cosine:.7f}"
        typer.echo(
            f"  {stage.tower:<5} {stage.stage:<14} {stage.num_cases} cases, largest difference {stage.largest:.3g} "
            f"(at most {stage.bound:g}){cosine}"
        )
    for each in record.differences:
        typer.echo(f"  by convention: {each.tower} case {each.case!r}, {each.why}: cosine {each.cosine:.4f}")

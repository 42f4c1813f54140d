"""The verb `mmalign import`: a model of another library to a bundle; with --explain, what would be chosen for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmalign.cpu import importing_torch
from mmalign_runtime.cli.terminal import say

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
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(choices))
        return
    width = max((len(choice.what) for choice in choices), default=0)
    for choice in choices:
        typer.echo(f"{choice.what:<{width}}  {choice.value}  ({choice.origin})")


def _show_bundle(out: Path, spec: BundleSpec, *, as_json: bool) -> None:
    import msgspec

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

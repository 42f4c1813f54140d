"""The verb that mmalign-export adds to the command line: export. torch is imported only when it runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mmalign.openmp import wait_without_spinning

if TYPE_CHECKING:
    from mmalign_export.export import Format


def register(app: typer.Typer) -> None:
    """Add the verb to the `mmalign` command."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a folder, or a .mmalign file.")] = Path(
        "bundle"
    ),
    formats: Annotated[str, typer.Option(help="onnx, and with commas aoti and compile.")] = "onnx",
    checkpoint: Annotated[str, typer.Option(help="best or last.")] = "best",
    opset_version: Annotated[int | None, typer.Option(help="ONNX opset of the towers.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
) -> None:
    """Export a run to a bundle, and prove it equal to PyTorch."""
    wait_without_spinning()
    from mmalign_export.export import export_run
    from mmalign_export.to_onnx import OPSET_VERSION

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("mmalign_export").setLevel(logging.INFO)
    if checkpoint not in ("best", "last"):
        raise typer.BadParameter(f"{checkpoint!r} is not known; choose best or last.", param_hint="--checkpoint")
    spec = export_run(
        run,
        out,
        formats=_formats(formats),
        checkpoint="best" if checkpoint == "best" else "last",
        opset_version=opset_version or OPSET_VERSION,
        force=force,
    )
    print(f"{out}: {len(spec.files)} files, {spec.embed_dim} dimensions, space {spec.space_id}")


def _formats(words: str) -> tuple[Format, ...]:
    from mmalign_export.export import Format

    formats = tuple(word.strip() for word in words.split(","))
    for word in formats:
        if word not in get_args(Format):
            raise typer.BadParameter(
                f"{word!r} is not known; choose among {', '.join(get_args(Format))}.", param_hint="--formats"
            )
    return cast("tuple[Format, ...]", formats)

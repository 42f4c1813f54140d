"""`mmalign embed`: a folder, a list or a table of images or texts to vectors, in a run that can be killed and resumed.

Exit code 0: every item was embedded; 1: done, and some items failed; 2: cannot run; 130 or 143: interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast, get_args

import typer

from mmalign_runtime.cli.embed_run import Request, embed_to_npz, embed_to_parts, resume_command
from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument
from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.config import RuntimeFields
    from mmalign_runtime.embedder import Embedder

EXIT_SOME_FAILED = 1

_NPZ = ".npz"

InputArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="INPUT", help="Folder, quoted glob, image, .txt list or .parquet file.", show_default=False),
]


@takes_config
def embed(
    context: typer.Context,
    bundle: BundleArgument,
    source: InputArgument,
    out: Annotated[Path, typer.Option(help="Where to write: a folder, .parquet or .npz.", show_default=False)],
    kind: Annotated[str, typer.Option(help="image or text.")] = "image",
    column: Annotated[str | None, typer.Option(help="Parquet: the column to embed.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Parquet: the column of ids; default: row numbers.")] = None,
    *,
    asked: Loading,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Items that go through the tower at once.")] = None,
    part_rows: Annotated[int | None, typer.Option(min=1, help="Items in a part; fewer when a minute is up.")] = None,
    on_error: Annotated[
        str, typer.Option(help="A bad item: record it and go on (exit code 1), skip (the same, exit code 0), or raise.")
    ] = "record",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start afresh and replace what is there.")] = False,
) -> None:
    """Embed images or texts into a folder or a file of vectors."""
    from mmalign_runtime.bulk.job import DEFAULT_PART_ROWS, Job, OnFailure
    from mmalign_runtime.cli.options import as_modality, one_of

    if context.args:
        seen = f"embed takes one INPUT, and got {1 + len(context.args)}: {source}, {context.args[0]}..."
        raise InputError(f"{seen} Where the shell expanded a pattern, quote it: 'photos/*.jpg'.")
    modality = as_modality(kind)
    sizes: RuntimeFields = {"image_batch_size": batch_size} if modality == "image" else {"text_batch_size": batch_size}
    asked = asked.replacing(sizes)
    job = Job(
        kind=modality,
        on_error=cast("OnFailure", one_of(on_error, get_args(OnFailure), "--on-error")),
        batch_size=asked.config().batch_size(modality),
        part_rows=part_rows or DEFAULT_PART_ROWS,
    )
    if resume and force:
        raise InputError("--resume goes on with what is there, --force removes it. Leave one of the two out.")

    def load() -> Embedder:
        return asked.load(bundle, towers=(job.kind,))

    _check_apart(source, out)
    request = Request(source, out, column, id_column, resume, force, again=resume_command(context))
    is_npz = out.suffix == _NPZ and not out.is_dir()
    num_failed = (embed_to_npz if is_npz else embed_to_parts)(request, job, load)
    if num_failed and job.on_error == "record":
        raise typer.Exit(EXIT_SOME_FAILED)


def _check_apart(source: str, out: Path) -> None:
    """Raise InputError where the output would replace the input, or become part of it."""
    read, written = Path(source).resolve(), out.resolve()
    if written == read or (read.is_dir() and written.is_relative_to(read)):
        raise InputError(f"--out {out} lies in the input, {source}. Choose a place outside of it.")

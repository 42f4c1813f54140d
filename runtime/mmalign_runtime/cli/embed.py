"""`mmalign embed`: a folder, a list or a table of images or texts to one file of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
import typer

from mmalign_runtime.cli.options import BundleArgument, PrecisionOption, ProviderOption, ThreadsOption
from mmalign_runtime.errors import InputError, ItemError

if TYPE_CHECKING:
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.saved import SavedVectors
    from mmalign_runtime.sources import Source
    from mmalign_runtime.spec import Modality
    from mmalign_runtime.streaming import OnError, StreamedItem


class Skipped(msgspec.Struct, frozen=True):
    """An item that was left out, and why."""

    id: str
    error: ItemError


def embed(
    bundle: BundleArgument,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Folder, glob, .txt list or .parquet file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where to write: .parquet or .npz.", show_default=False)],
    kind: Annotated[str, typer.Option(help="image or text.")] = "image",
    column: Annotated[str | None, typer.Option(help="Parquet: the column to embed.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Parquet: the column of ids; default: row numbers.")] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Items that go through the tower at once.")] = None,
    on_error: Annotated[str, typer.Option(help="raise: stop at the first bad item; skip: leave it out.")] = "raise",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Embed images or texts into one file of vectors."""
    from mmalign_runtime.cli.options import as_modality, as_on_error, as_precision, as_provider
    from mmalign_runtime.embedder import DEFAULT_BATCH_SIZE, Embedder
    from mmalign_runtime.saved import check_output, save_vectors
    from mmalign_runtime.sources import open_source

    modality, errors = as_modality(kind), as_on_error(on_error)
    check_output(out)
    if out.exists() and not force:
        raise InputError(f"{out} is there already. Add --force to replace it, or choose another --out.")
    entries = open_source(source, modality, column=column, id_column=id_column)
    embedder = Embedder.load(
        bundle,
        provider=as_provider(provider),
        precision=as_precision(precision),
        num_threads=threads,
        towers=(modality,),
    )
    size = batch_size or DEFAULT_BATCH_SIZE
    saved, skipped = embed_source(embedder, entries, modality, batch_size=size, on_error=errors)
    _report(skipped)
    if not saved.ids:
        raise InputError(f"none of the {len(entries)} items of {source} could be embedded; {out} was not written.")
    save_vectors(out, saved)
    num_vectors, embed_dim = saved.vectors.shape
    typer.echo(f"{out}: {num_vectors} vectors of {embed_dim}, space {saved.space_id}, variant {saved.variant_id}")


def embed_source(
    embedder: Embedder, entries: Source, kind: Modality, *, batch_size: int, on_error: OnError
) -> tuple[SavedVectors, list[Skipped]]:
    """Embed every entry under a progress bar, and return the vectors and what was left out."""
    import numpy as np

    from mmalign_runtime.cli.progress import with_progress
    from mmalign_runtime.saved import SavedVectors

    names: list[str] = []
    ids, vectors, skipped = [], [], []
    stream = _stream(embedder, _named(entries, names), kind, batch_size, on_error)
    for result in with_progress(stream, len(entries), f"{kind}s"):
        if result.vector is not None:
            ids.append(names[result.index])
            vectors.append(result.vector)
        elif result.error is not None:
            skipped.append(Skipped(names[result.index], result.error))
    stacked = np.stack(vectors) if vectors else np.empty((0, embedder.embed_dim), np.float32)  # (N, D)
    return SavedVectors(tuple(ids), stacked, embedder.space_id, embedder.info().variant_id), skipped


def _named(entries: Source, names: list[str]) -> Iterator[str | Path | bytes]:
    for entry in entries:
        names.append(entry.id)
        yield entry.item


def _stream(
    embedder: Embedder, items: Iterator[str | Path | bytes], kind: Modality, batch_size: int, on_error: OnError
) -> Iterator[StreamedItem]:
    if kind == "image":
        return embedder.stream_images(items, batch_size=batch_size, on_error=on_error)
    # What is no text is refused by the tokenizer, item by item.
    return embedder.stream_texts(cast("Iterator[str]", items), batch_size=batch_size, on_error=on_error)


def _report(skipped: Sequence[Skipped]) -> None:
    for item in skipped:
        typer.echo(f"skipped {item.id} ({item.error.source}), {item.error.stage}: {item.error.reason}", err=True)
    if skipped:
        typer.echo(f"{len(skipped)} items skipped", err=True)

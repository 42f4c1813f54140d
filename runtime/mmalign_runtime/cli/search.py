"""`mmalign search`: the saved vectors nearest to a text or an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, JsonOption
from mmalign_runtime.cli.terminal import cell, new_table, say
from mmalign_runtime.errors import InputError
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES
from mmalign_runtime.names import as_text, is_utf8
from mmalign_runtime.spec import TextTower

if TYPE_CHECKING:
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.ranking import Hit, SecondStage

_QUERY_LENGTH = 60  # of a query as it is named in a line


@takes_config
def search(
    bundle: BundleArgument,
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS", help="What embed wrote.", show_default=False)],
    queries: Annotated[list[str], typer.Argument(metavar="QUERY", help="Texts, or image files with --image.")],
    image: Annotated[bool, typer.Option("--image", help="The queries are paths of images.")] = False,
    top_k: Annotated[int, typer.Option(min=1, help="How many to show for each query.")] = 10,
    rerank: Annotated[
        int, typer.Option(min=0, help="Score that many candidates again by their regions. 0: none.", show_default=False)
    ] = 0,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --rerank: what was embedded.", show_default=False),
    ] = None,
    *,
    asked: Loading,
    json: JsonOption = False,
) -> None:
    """Search saved vectors with texts or images, exactly; with --rerank, a second stage orders the nearest anew."""
    import msgspec

    from mmalign_runtime.ranking import search
    from mmalign_runtime.saved import load_vectors

    if not image:
        _check_queries(queries)
        _say_files(queries)
    _check_rerank(rerank, images, top_k, image=image)
    saved = load_vectors(vectors)
    embedder = asked.load(bundle, towers=("image",) if image else ("text",))
    query = embedder.encode_image(queries) if image else embedder.encode_text(queries)  # (Q, D)
    stage = None if images is None else _second_stage(embedder, images)
    found = search(query, saved, top_k=top_k, space_id=embedder.space_id, rerank=rerank, second_stage=stage)
    truncated = [False] * len(queries) if image else embedder.truncated(queries).tolist()
    _say_truncated(queries, truncated, embedder)
    if json:
        rows = [
            {"query": as_text(query), "hits": hits, "truncated": is_cut}
            for query, hits, is_cut in zip(queries, found, truncated, strict=True)
        ]
        typer.echo(msgspec.json.encode(rows))
    else:
        print_hits(queries, found)


def _check_rerank(rerank: int, images: Path | None, top_k: int, *, image: bool) -> None:
    if (images is None) != (rerank == 0):
        raise InputError("--rerank and --images go together: name the folder of the images that were embedded.")
    if image and rerank:
        raise InputError("--rerank orders images by what a text sees in them, and --image was given. Leave one out.")
    if 0 < rerank < top_k:
        raise InputError(f"--rerank is {rerank}, below --top-k, {top_k}. Rerank as many as are shown, or more.")


def _second_stage(embedder: Embedder, images: Path) -> SecondStage:
    from mmalign_runtime.rerank import RegionReranker, images_in

    return RegionReranker(embedder.attention, images_in(images))


def _check_queries(queries: Sequence[str]) -> None:
    for number, query in enumerate(queries, start=1):
        if not is_utf8(query):
            raise InputError(f"query {number} ({as_text(query)}) is not UTF-8. Set the terminal's encoding to UTF-8.")


def _say_files(queries: Sequence[str]) -> None:
    """Say of a query that is an image on this disk that its name is searched for, and not the image."""
    for query in queries:
        if Path(query).suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(query):  # noqa: PTH113  a long text is no OSError
            say(f"the words {query!r} are searched for; to search with that image add --image", err=True)


def _say_truncated(queries: Sequence[str], truncated: Sequence[bool], embedder: Embedder) -> None:
    length = embedder.bundle.spec.tower("text", TextTower).spec.context_length
    for query, is_cut in zip(queries, truncated, strict=True):
        if is_cut:
            shown = query if len(query) <= _QUERY_LENGTH else f"{query[:_QUERY_LENGTH]}..."
            say(f"the query {shown!r} has more than {length} tokens and lost its end", err=True)


def print_hits(queries: Sequence[str], found: Sequence[Sequence[Hit]]) -> None:
    """Print a table of hits for each query."""
    from rich.console import Console

    console = Console()
    for query, hits in zip(queries, found, strict=True):
        table = new_table("rank", "score", "id", title=cell(query), numbers=("rank", "score"))
        table.columns[2].overflow = "fold"
        for hit in hits:
            table.add_row(str(hit.rank), f"{hit.score:.4f}", cell(hit.id))
        console.print(table)

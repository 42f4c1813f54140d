"""`mmalign embed`: a folder, a list or a table of images or texts to vectors, in a run that can be killed and resumed.

Exit code 0: every item was embedded; 1: done, and some items failed; 2: cannot run; 130 or 143: interrupted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError, MmalignError
from mmalign_runtime.names import as_text
from mmalign_runtime.spec import TextTower

if TYPE_CHECKING:
    from mmalign_runtime.bulk.entries import Source
    from mmalign_runtime.bulk.failures import Failure
    from mmalign_runtime.bulk.job import Job
    from mmalign_runtime.bulk.outputs import Output, Plan
    from mmalign_runtime.bulk.parts import PartsFolder
    from mmalign_runtime.cli.interrupts import Stop
    from mmalign_runtime.config import RuntimeFields
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.saved.manifest import Manifest

EXIT_SOME_FAILED = 1

_NPZ = ".npz"
_NUM_FAILURES_SHOWN = 5
_ID_LENGTH = 200  # of an id as it is shown: a list may hold a picture's base64


class Request(msgspec.Struct, frozen=True):
    """What was asked for on the command line; `again` is the command that goes on with it."""

    source: str
    out: Path
    column: str | None
    id_column: str | None
    resume: bool
    force: bool
    again: str


@takes_config
def embed(
    context: typer.Context,
    bundle: BundleArgument,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Folder, glob, .txt list or .parquet file.", show_default=False)
    ],
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
    from mmalign_runtime.bulk.job import DEFAULT_PART_ROWS, Job
    from mmalign_runtime.cli.options import as_modality, as_on_failure

    modality = as_modality(kind)
    sizes: RuntimeFields = {"image_batch_size": batch_size} if modality == "image" else {"text_batch_size": batch_size}
    asked = asked.replacing(sizes)
    job = Job(
        kind=modality,
        on_error=as_on_failure(on_error),
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


def embed_to_parts(request: Request, job: Job, load: Callable[[], Embedder]) -> int:
    """Embed to a folder of parts or, through one, to a .parquet file. Return how many items failed."""
    from mmalign_runtime.bulk.outputs import Output
    from mmalign_runtime.bulk.parts import claim
    from mmalign_runtime.cli.interrupts import stop_on_signals

    output = Output(request.out)
    output.check(resume=request.resume, force=request.force)
    with stop_on_signals() as stop, claim(output.parts_folder) as parts:
        try:
            return _run(request, job, output, parts, load, stop)
        except KeyboardInterrupt as error:
            _say_how_to_go_on("interrupted", parts, request)
            raise typer.Exit(stop.exit_code) from error
        finally:
            parts.forget_if_empty()


def embed_to_npz(request: Request, job: Job, load: Callable[[], Embedder]) -> int:
    """Embed to one .npz file, held in memory until its end. Return how many items failed."""
    import numpy as np

    from mmalign_runtime.bulk.failures import Failure
    from mmalign_runtime.bulk.job import stream_entries
    from mmalign_runtime.cli.progress import progress_bar
    from mmalign_runtime.saved import SavedVectors, check_output, save_vectors

    if request.resume:
        raise InputError(
            f"{request.out} is held in memory until the end. To resume, use a folder or .parquet as --out."
        )
    check_output(request.out)
    if request.out.exists() and not request.force:
        raise InputError(f"{request.out} is there already. Add --force to replace it, or choose another --out.")
    entries, embedder = _open(request, job), load()
    _say_remarks(entries)
    ids, vectors, failures, num_truncated = [], [], [], 0
    with progress_bar(f"{job.kind}s", len(entries)) as advance:
        for row, result in enumerate(stream_entries(embedder, iter(entries), job)):
            if result.error is not None:
                failures.append(Failure(row, result.entry.id, result.error.stage, result.error.reason))
            elif result.streamed.vector is not None:
                ids.append(result.entry.id)
                vectors.append(result.streamed.vector)
                num_truncated += result.streamed.truncated
            advance(1)
    _say_truncated(num_truncated, len(entries), embedder)
    _say_failures(failures, len(failures), len(entries), "with --out FOLDER they would be listed in a table")
    if not ids:
        raise InputError(
            f"none of the {len(entries)} items of {request.source} could be embedded; nothing was written."
        )
    save_vectors(
        request.out, SavedVectors(tuple(ids), np.stack(vectors), embedder.space_id, embedder.info().variant_id)
    )
    _say_done(request.out, len(ids), embedder.embed_dim, embedder.space_id, embedder.info().variant_id)
    return len(failures)


def resume_command(context: typer.Context) -> str:
    """Return the command that goes on with this one: the same words, with --resume instead of --force."""
    words = ["mmalign", "embed"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif parameter.name not in ("resume", "force") and value not in (None, parameter.default):
            names = parameter.secondary_opts if value is False else parameter.opts
            words += names[:1] if isinstance(value, bool) else [names[0], str(value)]
    return shlex.join([*words, "--resume"])


def _check_apart(source: str, out: Path) -> None:
    """Raise InputError where the output would replace the input, or become part of it."""
    read, written = Path(source).resolve(), out.resolve()
    if written == read or (read.is_dir() and written.is_relative_to(read)):
        raise InputError(f"--out {out} lies in the input, {source}. Choose a place outside of it.")


def _run(
    request: Request, job: Job, output: Output, parts: PartsFolder, load: Callable[[], Embedder], stop: Stop
) -> int:
    from mmalign_runtime.bulk.job import embed_parts
    from mmalign_runtime.cli.progress import progress_bar

    source, embedder = _open(request, job), load()
    _say_remarks(source)
    plan = output.plan(parts, _manifest(request, job, source, embedder), resume=request.resume, force=request.force)
    failures: list[Failure] = []
    done = plan.manifest
    if plan.state == "complete":
        say(f"{request.out} is complete: nothing is left to embed", err=True)
    else:
        num_before = parts.num_done(len(source))
        _say_state(plan, parts, request, num_before)
        with _told_how_to_go_on(parts, request), progress_bar(f"{job.kind}s", len(source), num_before) as advance:
            stop.at_once = False
            embed_parts(embedder, source, parts, plan.manifest, job, advance=advance, stopped=stop.asked)
            stop.at_once = True
        if stop.asked():
            raise KeyboardInterrupt
        _check_unchanged(request, job, plan.manifest)
        failures = parts.first_failures(_NUM_FAILURES_SHOWN)
        done = output.finish(parts, plan.manifest)
    _say_truncated(done.num_truncated, done.num_items, embedder)
    _say_failures(failures, done.num_failed, done.num_items, f"they are listed in {output.errors}")
    _say_done(request.out, done.num_items - done.num_failed, done.embed_dim, done.space_id, done.variant_id)
    return done.num_failed


@contextmanager
def _told_how_to_go_on(parts: PartsFolder, request: Request) -> Iterator[None]:
    try:
        yield
    except MmalignError:
        _say_how_to_go_on("stopped", parts, request)
        raise


def _open(request: Request, job: Job) -> Source:
    from mmalign_runtime.bulk.sources import open_source

    source = open_source(request.source, job.kind, column=request.column, id_column=request.id_column)
    if not len(source):
        raise InputError(f"{request.source} has no rows, expected at least one. Check the table.")
    return source


def _manifest(request: Request, job: Job, source: Source, embedder: Embedder) -> Manifest:
    from mmalign_runtime.config import RuntimeConfig
    from mmalign_runtime.saved.manifest import Manifest

    info = embedder.info()
    return Manifest(
        source=as_text(request.source),
        kind=job.kind,
        column=request.column,
        id_column=request.id_column,
        num_items=len(source),
        fingerprint=source.fingerprint(),
        bundle=info.bundle,
        space_id=info.space_id,
        variant_id=info.variant_id,
        config=RuntimeConfig(**info.fields()),
        embed_dim=info.embed_dim,
        batch_size=job.batch_size,
    )


def _check_unchanged(request: Request, job: Job, manifest: Manifest) -> None:
    source = _open(request, job)
    if (len(source), source.fingerprint()) != (manifest.num_items, manifest.fingerprint):
        raise InputError(
            f"{request.source} changed while it was embedded, so items may be missing. Embed a .txt list of its files, "
            "which does not change, or start afresh with --force once it is at rest."
        )


def _say_state(plan: Plan, parts: PartsFolder, request: Request, num_before: int) -> None:
    for name in parts.damaged:
        say(f"{parts.folder / name} is damaged: its items are embedded again", err=True)
    if plan.state == "goes on":
        say(f"going on with {request.out}: {num_before:,} of {plan.manifest.num_items:,} items are done", err=True)
    elif request.resume:
        say(f"nothing to resume at {request.out}: starting from the first item", err=True)


def _say_how_to_go_on(why: str, parts: PartsFolder, request: Request) -> None:
    manifest = parts.manifest()
    num_done = 0 if manifest is None else parts.num_done(manifest.num_items)
    if manifest is None or not num_done:
        say(f"{why} before anything was written: there is nothing to resume", err=True)
        return
    say(f"{why}: {num_done:,} of {manifest.num_items:,} items are done and safe. Go on with:", err=True)
    say(request.again, err=True)


def _say_remarks(source: Source) -> None:
    for remark in source.remarks:
        say(remark, err=True)


def _say_truncated(num_truncated: int, num_items: int, embedder: Embedder) -> None:
    if num_truncated:
        length = embedder.bundle.spec.tower("text", TextTower).spec.context_length
        say(f"{num_truncated:,} of {num_items:,} texts have more than {length} tokens and lost their end", err=True)


def _say_failures(first: Sequence[Failure], num_failed: int, num_items: int, where: str) -> None:
    if not num_failed:
        return
    say(f"{num_failed:,} of {num_items:,} items failed; {where}", err=True)
    shown = first[:_NUM_FAILURES_SHOWN]
    for failure in shown:
        say(f"  {_short(failure.id)}, {failure.stage}: {failure.reason}", err=True)
    if shown and num_failed > len(shown):
        say(f"  and {num_failed - len(shown):,} more", err=True)


def _short(name: str) -> str:
    return name if len(name) <= _ID_LENGTH else f"{name[:_ID_LENGTH]}..."


def _say_done(out: Path, num_vectors: int, embed_dim: int, space_id: str, variant_id: str) -> None:
    say(f"{out}: {num_vectors:,} vectors of {embed_dim}, space {space_id}, variant {variant_id}")

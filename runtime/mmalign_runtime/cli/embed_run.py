"""One run of `mmalign embed`: to a folder of parts or, through one, a .parquet file, which can be killed and resumed.

Or to one .npz file, held in memory until its end. All that it says but the last line goes to standard error.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError, MmalignError
from mmalign_runtime.names import as_text
from mmalign_runtime.spec import TextTower

if TYPE_CHECKING:
    from mmalign_runtime.bulk.entries import Source
    from mmalign_runtime.bulk.job import Job
    from mmalign_runtime.bulk.outputs import Output, Plan
    from mmalign_runtime.bulk.parts import Failure, PartsFolder
    from mmalign_runtime.cli.interrupts import Stop
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.saved.manifest import Manifest

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


def embed_to_parts(request: Request, job: Job, load: Callable[[], Embedder]) -> int:
    """Embed to a folder of parts or, through one, to a .parquet file. Return how many items failed."""
    from mmalign_runtime.bulk.claim import claim
    from mmalign_runtime.bulk.outputs import Output
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

    from mmalign_runtime.bulk.job import stream_entries
    from mmalign_runtime.bulk.parts import Part
    from mmalign_runtime.cli.progress import progress_bar
    from mmalign_runtime.saved import SavedVectors, check_output, save_vectors

    out = request.out
    if request.resume:
        raise InputError(f"{out} is held in memory until the end. To resume, use a folder or .parquet as --out.")
    check_output(out)
    if out.exists() and not request.force:
        raise InputError(f"{out} is there already. Add --force to replace it, or choose another --out.")
    source, embedder = _open_input(request, job), load()
    _say_remarks(source)
    found = Part(0)
    try:
        with progress_bar(f"{job.kind}s", len(source)) as advance:
            for result in stream_entries(embedder, iter(source), job):
                found.add(result.entry.id, result.streamed, result.error)
                advance(1)
    except KeyboardInterrupt:
        say("interrupted: nothing was written. With a folder or .parquet as --out the run could be resumed.", err=True)
        raise
    _say_truncated(found.num_truncated, len(source), embedder)
    num_failed = len(found.failures)
    _say_failures(found.failures, num_failed, len(source), "with --out FOLDER they would be listed in a table")
    if not found.ids:
        raise InputError(
            f"none of the {len(source)} items of {request.source} could be embedded; nothing was written"
            f"{_as_texts(request, job) or '.'}"
        )
    vectors = np.stack(found.vectors)
    save_vectors(out, SavedVectors(tuple(found.ids), vectors, embedder.space_id, embedder.info().variant_id))
    _say_done(request, len(found.ids), len(source), embedder)
    return num_failed


def _run(
    request: Request, job: Job, output: Output, parts: PartsFolder, load: Callable[[], Embedder], stop: Stop
) -> int:
    from mmalign_runtime.bulk.job import embed_parts
    from mmalign_runtime.cli.progress import progress_bar

    source, embedder = _open_input(request, job), load()
    _say_remarks(source)
    plan = output.plan(parts, _manifest(request, job, source, embedder), resume=request.resume, force=request.force)
    failures: list[Failure] = []
    done = plan.manifest
    if plan.state == "complete":
        say(f"{request.out} is complete: nothing is left to embed", err=True)
    else:
        num_before = parts.num_done(len(source))
        _say_state(plan, parts, request, num_before)
        try:
            with progress_bar(f"{job.kind}s", len(source), num_before) as advance:
                stop.at_once = False
                embed_parts(embedder, source, parts, plan.manifest, job, advance=advance, stopped=stop.asked)
                stop.at_once = True
        except MmalignError:
            _say_how_to_go_on("stopped", parts, request)
            raise
        if stop.asked():
            raise KeyboardInterrupt
        _check_unchanged(request, job, plan.manifest)
        failures = parts.first_failures(_NUM_FAILURES_SHOWN)
        done = output.finish(parts, plan.manifest)
    _say_truncated(done.num_truncated, done.num_items, embedder)
    hint = _as_texts(request, job) if done.num_failed == done.num_items else ""
    _say_failures(failures, done.num_failed, done.num_items, f"they are listed in {output.errors}{hint}")
    _say_done(request, done.num_items - done.num_failed, done.num_items, embedder)
    return done.num_failed


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


def _open_input(request: Request, job: Job) -> Source:
    """Open what is to be embedded. Raises InputError when it cannot be read or is empty."""
    from mmalign_runtime.bulk.sources import open_source

    source = open_source(request.source, job.kind, column=request.column, id_column=request.id_column)
    if not len(source):
        raise InputError(f"{request.source} has no rows, expected at least one. Check the table.")
    return source


def _check_unchanged(request: Request, job: Job, manifest: Manifest) -> None:
    source = _open_input(request, job)
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
    """Say how many items are done, and the command that goes on."""
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
        name = failure.id if len(failure.id) <= _ID_LENGTH else f"{failure.id[:_ID_LENGTH]}..."
        say(f"  {name}, {failure.stage}: {failure.reason}", err=True)
    if shown and num_failed > len(shown):
        say(f"  and {num_failed - len(shown):,} more", err=True)


def _say_done(request: Request, num_vectors: int, num_items: int, embedder: Embedder) -> None:
    info = embedder.info()
    vectors = f"{num_vectors:,} of {num_items:,} items, vectors of {embedder.embed_dim} numbers"
    say(f"{request.out}: {vectors}, space {embedder.space_id}, variant {info.variant_id}")


def _as_texts(request: Request, job: Job) -> str:
    """Return what to do where each line of a list was taken as the path of an image, and none is one; or nothing."""
    if job.kind == "image" and request.source.endswith(".txt"):
        return ". Each line was taken as the path of an image. If the lines are texts, add `--kind text`."
    return ""

"""`mmalign embed` to a folder of parts or, through one, to a .parquet file: a run that can be killed and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from mmalign_runtime.cli.embed_output import (
    NUM_FAILURES_SHOWN,
    as_texts,
    say_done,
    say_failures,
    say_how_to_go_on,
    say_remarks,
    say_state,
    say_truncated,
)
from mmalign_runtime.cli.embed_request import Request, open_input
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError, MmalignError
from mmalign_runtime.names import as_text

if TYPE_CHECKING:
    from mmalign_runtime.bulk.entries import Source
    from mmalign_runtime.bulk.failures import Failure
    from mmalign_runtime.bulk.job import Job
    from mmalign_runtime.bulk.outputs import Output
    from mmalign_runtime.bulk.parts import PartsFolder
    from mmalign_runtime.cli.interrupts import Stop
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.saved.manifest import Manifest


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
            say_how_to_go_on("interrupted", parts, request)
            raise typer.Exit(stop.exit_code) from error
        finally:
            parts.forget_if_empty()


def _run(
    request: Request, job: Job, output: Output, parts: PartsFolder, load: Callable[[], Embedder], stop: Stop
) -> int:
    from mmalign_runtime.bulk.job import embed_parts
    from mmalign_runtime.cli.progress import progress_bar

    source, embedder = open_input(request, job), load()
    say_remarks(source)
    plan = output.plan(parts, _manifest(request, job, source, embedder), resume=request.resume, force=request.force)
    failures: list[Failure] = []
    done = plan.manifest
    if plan.state == "complete":
        say(f"{request.out} is complete: nothing is left to embed", err=True)
    else:
        num_before = parts.num_done(len(source))
        say_state(plan, parts, request, num_before)
        with _told_how_to_go_on(parts, request), progress_bar(f"{job.kind}s", len(source), num_before) as advance:
            stop.at_once = False
            embed_parts(embedder, source, parts, plan.manifest, job, advance=advance, stopped=stop.asked)
            stop.at_once = True
        if stop.asked():
            raise KeyboardInterrupt
        _check_unchanged(request, job, plan.manifest)
        failures = parts.first_failures(NUM_FAILURES_SHOWN)
        done = output.finish(parts, plan.manifest)
    say_truncated(done.num_truncated, done.num_items, embedder)
    hint = as_texts(request, job) if done.num_failed == done.num_items else ""
    say_failures(failures, done.num_failed, done.num_items, f"they are listed in {output.errors}{hint}")
    say_done(request, done.num_items - done.num_failed, done.num_items, embedder)
    return done.num_failed


@contextmanager
def _told_how_to_go_on(parts: PartsFolder, request: Request) -> Iterator[None]:
    try:
        yield
    except MmalignError:
        say_how_to_go_on("stopped", parts, request)
        raise


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
    source = open_input(request, job)
    if (len(source), source.fingerprint()) != (manifest.num_items, manifest.fingerprint):
        raise InputError(
            f"{request.source} changed while it was embedded, so items may be missing. Embed a .txt list of its files, "
            "which does not change, or start afresh with --force once it is at rest."
        )

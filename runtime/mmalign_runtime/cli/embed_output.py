"""What `mmalign embed` says while it runs and at its end; all but the last line goes to standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmalign_runtime.cli.terminal import say
from mmalign_runtime.spec import TextTower

if TYPE_CHECKING:
    from mmalign_runtime.bulk.entries import Source
    from mmalign_runtime.bulk.failures import Failure
    from mmalign_runtime.bulk.job import Job
    from mmalign_runtime.bulk.outputs import Plan
    from mmalign_runtime.bulk.parts import PartsFolder
    from mmalign_runtime.cli.embed_request import Request
    from mmalign_runtime.embedder import Embedder

NUM_FAILURES_SHOWN = 5
LIST_SUFFIX = ".txt"
_ID_LENGTH = 200  # of an id as it is shown: a list may hold a picture's base64


def say_state(plan: Plan, parts: PartsFolder, request: Request, num_before: int) -> None:
    """Say what is there already, and what is done again."""
    for name in parts.damaged:
        say(f"{parts.folder / name} is damaged: its items are embedded again", err=True)
    if plan.state == "goes on":
        say(f"going on with {request.out}: {num_before:,} of {plan.manifest.num_items:,} items are done", err=True)
    elif request.resume:
        say(f"nothing to resume at {request.out}: starting from the first item", err=True)


def say_how_to_go_on(why: str, parts: PartsFolder, request: Request) -> None:
    """Say how many items are done, and the command that goes on."""
    manifest = parts.manifest()
    num_done = 0 if manifest is None else parts.num_done(manifest.num_items)
    if manifest is None or not num_done:
        say(f"{why} before anything was written: there is nothing to resume", err=True)
        return
    say(f"{why}: {num_done:,} of {manifest.num_items:,} items are done and safe. Go on with:", err=True)
    say(request.again, err=True)


def say_remarks(source: Source) -> None:
    """Say what opening the input met."""
    for remark in source.remarks:
        say(remark, err=True)


def say_truncated(num_truncated: int, num_items: int, embedder: Embedder) -> None:
    """Say how many texts lost their end."""
    if num_truncated:
        length = embedder.bundle.spec.tower("text", TextTower).spec.context_length
        say(f"{num_truncated:,} of {num_items:,} texts have more than {length} tokens and lost their end", err=True)


def say_failures(first: Sequence[Failure], num_failed: int, num_items: int, where: str) -> None:
    """Say how many items failed, and show the first."""
    if not num_failed:
        return
    say(f"{num_failed:,} of {num_items:,} items failed; {where}", err=True)
    shown = first[:NUM_FAILURES_SHOWN]
    for failure in shown:
        say(f"  {_short(failure.id)}, {failure.stage}: {failure.reason}", err=True)
    if shown and num_failed > len(shown):
        say(f"  and {num_failed - len(shown):,} more", err=True)


def say_done(request: Request, num_vectors: int, num_items: int, embedder: Embedder) -> None:
    """Say what was written."""
    info = embedder.info()
    vectors = f"{num_vectors:,} of {num_items:,} items, vectors of {embedder.embed_dim} numbers"
    say(f"{request.out}: {vectors}, space {embedder.space_id}, variant {info.variant_id}")


def as_texts(request: Request, job: Job) -> str:
    """Return what to do where each line of a list was taken as the path of an image, and none is one; or nothing."""
    if job.kind == "image" and request.source.endswith(LIST_SUFFIX):
        return ". Each line was taken as the path of an image. If the lines are texts, add `--kind text`."
    return ""


def _short(name: str) -> str:
    return name if len(name) <= _ID_LENGTH else f"{name[:_ID_LENGTH]}..."

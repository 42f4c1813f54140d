"""`mmalign embed` to one .npz file, held in memory until its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmalign_runtime.cli.embed_output import as_texts, say_done, say_failures, say_remarks, say_truncated
from mmalign_runtime.cli.embed_request import Request, open_input
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.bulk.job import Job
    from mmalign_runtime.embedder import Embedder


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
    entries, embedder = open_input(request, job), load()
    say_remarks(entries)
    ids, vectors, failures, num_truncated = [], [], [], 0
    with _told_of_an_interrupt(), progress_bar(f"{job.kind}s", len(entries)) as advance:
        for row, result in enumerate(stream_entries(embedder, iter(entries), job)):
            if result.error is not None:
                failures.append(Failure(row, result.entry.id, result.error.stage, result.error.reason))
            elif result.streamed.vector is not None:
                ids.append(result.entry.id)
                vectors.append(result.streamed.vector)
                num_truncated += result.streamed.truncated
            advance(1)
    say_truncated(num_truncated, len(entries), embedder)
    say_failures(failures, len(failures), len(entries), "with --out FOLDER they would be listed in a table")
    if not ids:
        raise InputError(
            f"none of the {len(entries)} items of {request.source} could be embedded; nothing was written"
            f"{as_texts(request, job) or '.'}"
        )
    save_vectors(
        request.out, SavedVectors(tuple(ids), np.stack(vectors), embedder.space_id, embedder.info().variant_id)
    )
    say_done(request, len(ids), len(entries), embedder)
    return len(failures)


@contextmanager
def _told_of_an_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted: nothing was written. With a folder or .parquet as --out the run could be resumed.", err=True)
        raise

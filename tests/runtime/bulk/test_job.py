from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder, load_vectors
from mmalign_runtime.bulk.entries import Entry, Source
from mmalign_runtime.bulk.job import Job, embed_parts, stream_entries
from mmalign_runtime.bulk.parts import PartsFolder
from mmalign_runtime.bulk.sources import open_source
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.errors import InputError, ItemError
from mmalign_runtime.saved.manifest import Manifest
from mmalign_runtime.streaming import StreamedItem

pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
pytestmark = pytest.mark.usefixtures("window_of_one_batch")

NUM_TEXTS = 21
BAD = 5
JOB = Job(kind="text", batch_size=2, part_rows=4)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    lines = [f"a dog {'very ' * (number % 5)}red".encode() for number in range(NUM_TEXTS)]
    lines[BAD] = b"caf\xe9"
    (tmp_path / "texts.txt").write_bytes(b"\n".join(lines))
    return open_source(tmp_path / "texts.txt", "text")


@pytest.fixture
def manifest(embedder: Embedder) -> Manifest:
    return Manifest(
        source="texts.txt",
        kind="text",
        column=None,
        id_column=None,
        num_items=NUM_TEXTS,
        fingerprint="f",
        bundle="bundle",
        space_id=embedder.space_id,
        variant_id="fp32-0",
        config=RuntimeConfig(provider="cpu"),
        embed_dim=embedder.embed_dim,
        batch_size=2,
    )


@pytest.fixture
def parts(tmp_path: Path, manifest: Manifest) -> PartsFolder:
    (tmp_path / "vectors").mkdir()
    parts = PartsFolder(tmp_path / "vectors")
    parts.begin(manifest)
    return parts


def test_parts_hold_every_item_in_order(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    assert embed_parts(embedder, source, parts, manifest, JOB)
    assert [int(path.stem[-2:]) for path in parts.parts()] == [0, 4, 8, 12, 16, 20]
    assert [(failure.row, failure.id) for failure in parts.first_failures(9)] == [(BAD, str(BAD))]
    saved = load_vectors(parts.finish(manifest) and parts.folder)
    assert saved.ids == tuple(str(number) for number in range(NUM_TEXTS) if number != BAD)
    texts = [str(entry.item) for entry in source]
    expected = embedder.encode_text(texts, batch_size=2, on_error="skip").vectors
    np.testing.assert_array_equal(saved.vectors, expected)


def test_a_run_that_goes_on_gives_the_same_to_the_bit(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    embed_parts(embedder, source, parts, manifest, JOB)
    whole = {path.name: path.read_bytes() for path in parts.parts()}
    for path in (parts.parts()[1], parts.parts()[-1]):
        path.unlink()
    assert parts.num_failed() == 1
    assert embed_parts(embedder, source, parts, manifest, JOB)
    assert {path.name: path.read_bytes() for path in parts.parts()} == whole
    assert parts.num_failed() == 1


def test_a_part_is_closed_when_its_time_is_up(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    embed_parts(embedder, source, parts, manifest, msgspec.structs.replace(JOB, part_seconds=0.0))
    assert len(parts.parts()) == -(-NUM_TEXTS // JOB.batch_size)


def test_a_stop_writes_the_batch_at_hand_and_no_more(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    done: list[int] = []
    assert not embed_parts(embedder, source, parts, manifest, JOB, advance=done.append, stopped=lambda: sum(done) >= 6)
    assert (sum(done), parts.num_done(NUM_TEXTS)) == (6, 6)


def test_the_first_failure_stops_a_run_that_is_asked_to(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    embed_parts(embedder, source, parts, manifest, JOB, stopped=lambda: True)  # so that numbers do not start at 0
    with pytest.raises(ItemError, match=r"item 5 .*tokenize: the byte 0xe9 at character 3 is not UTF-8"):
        embed_parts(embedder, source, parts, manifest, msgspec.structs.replace(JOB, on_error="raise"))
    assert parts.num_done(NUM_TEXTS) == 4


class OutOfMemory:
    """An embedder whose tower fails on the third batch."""

    def __init__(self, real: Embedder) -> None:
        self.real = real

    def stream_texts(
        self, texts: Iterator[str], *, batch_size: int, on_error: Literal["skip"]
    ) -> Iterator[StreamedItem]:
        for result in self.real.stream_texts(texts, batch_size=batch_size, on_error=on_error):
            if result.index == 2 * batch_size:
                raise MemoryError("bad allocation")
            yield result


def test_a_tower_without_memory_is_named_and_what_was_done_is_kept(
    embedder: Embedder, source: Source, parts: PartsFolder, manifest: Manifest
) -> None:
    with pytest.raises(InputError, match=r"the batch from item 4 on could not be embedded: bad allocation.*--resume"):
        embed_parts(cast("Embedder", OutOfMemory(embedder)), source, parts, manifest, JOB)
    assert parts.num_done(NUM_TEXTS) == 4


def test_a_text_file_that_cannot_be_read_is_one_failure(embedder: Embedder) -> None:
    entries = [Entry("a", "a dog"), Entry("b", Path("b.txt"), problem="Permission denied."), Entry("c", "a cat")]
    results = list(stream_entries(embedder, iter(entries), JOB, first=10))
    assert [result.error is None for result in results] == [True, False, True]
    assert str(results[1].error) == "item 11 (b.txt), open: Permission denied."

import array
import ctypes
import io
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime.image.opening import detach, open_image
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.spec import ImageLimits, ImageSpec
from tests.runtime.pictures import noise, png, saved

SPEC = ImageSpec(limits=ImageLimits(max_bytes=10_000))
RAW = saved(Image.fromarray(noise(5, 7)), "PNG")


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_path_is_closed_and_a_caller_s_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "dog.png"
    path.write_bytes(RAW)
    before = num_open_files()
    with path.open("rb") as file, open_image(detach(file, SPEC), SPEC) as opened:
        assert opened.image.size == (7, 5)
        assert not file.closed
    with open_image(path, SPEC):
        pass
    with pytest.raises(Refusal, match="more than"):
        path.write_bytes(png(60_000, 60_000))
        open_image(path, SPEC).__enter__()
    assert num_open_files() == before


def test_a_text_that_looks_like_base64_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "d" * 100
    Path(name).write_bytes(RAW)
    with open_image(name, SPEC) as opened:
        assert opened.image.size == (7, 5)
    with pytest.raises(Refusal, match="looks like base64"), open_image("e" * 100, SPEC):
        pass


def test_no_header_is_read_of_what_is_no_regular_file() -> None:
    with pytest.raises(Refusal, match="a pipe, a socket or a device"), open_image("/dev/null", SPEC):
        pass


def test_a_file_object_is_read_no_further_than_the_limit() -> None:
    class Endless(io.RawIOBase):
        num_read = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.num_read += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(Refusal, match="bytes are more than the 10000"):
        detach(endless, SPEC)
    assert endless.num_read == SPEC.limits.max_bytes + 1


def mapped(raw: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(raw))
    memory.write(raw)
    return memory


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        memoryview,
        lambda raw: memoryview(bytearray(raw)),
        lambda raw: memoryview(raw).cast("b"),
        lambda raw: memoryview(raw).cast("c"),
        lambda raw: memoryview(raw[::-1])[::-1],
        lambda raw: array.array("B", raw),
        lambda raw: (ctypes.c_char * len(raw)).from_buffer_copy(raw),
        lambda raw: np.frombuffer(raw, np.uint8),
        mapped,
    ],
)
def test_the_bytes_of_a_file_come_in_any_buffer(make: Callable[[bytes], object]) -> None:
    assert detach(make(RAW), SPEC) == RAW  # type: ignore[arg-type]


def test_a_buffer_that_changes_afterwards_changes_nothing() -> None:
    buffer = bytearray(RAW)
    detached = detach(buffer, SPEC)
    buffer[:] = bytes(len(buffer))
    with open_image(detached, SPEC) as opened:
        assert opened.image.size == (7, 5)


def test_a_buffer_over_the_limit_is_refused_before_it_is_copied() -> None:
    with pytest.raises(Refusal, match="10001 bytes are more than the 10000"):
        detach(bytearray(10_001), SPEC)


@pytest.mark.parametrize("item", [memoryview(np.zeros((4, 4, 3), np.uint8)), memoryview(b"abcd").cast("I")])
def test_a_buffer_that_is_not_a_row_of_bytes_is_refused(item: memoryview) -> None:
    with pytest.raises(Refusal, match="not a row of bytes"), open_image(detach(item, SPEC), SPEC):
        pass

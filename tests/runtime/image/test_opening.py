import io
from pathlib import Path

import pytest
from PIL import Image

from mmalign_runtime.image.opening import hold, open_image
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
    with path.open("rb") as file, open_image(hold(file, SPEC), SPEC) as opened:
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
        hold(endless, SPEC)
    assert endless.num_read == SPEC.limits.max_bytes + 1

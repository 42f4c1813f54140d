"""Real small images, and the functions that put them where a test wants them."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

PutImage = Callable[[str], Path]


@pytest.fixture
def jpeg() -> bytes:
    """Return an encoded picture, 6 by 4."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def put_image(tmp_path: Path) -> PutImage:
    """Return a function that draws an image at a path below `tmp_path`, in the format of its suffix; no two alike."""
    num_drawn = itertools.count()

    def put(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 6), (128, 128, 7 * next(num_drawn) % 256)).save(path)
        return path

    return put

"""Every format that is decoded has names, and what Pillow writes under each name is decoded."""

import io
from typing import get_args

import pytest
from PIL import Image

from mmalign_runtime.bulk.sources import IMAGE_SUFFIXES as BULK_SUFFIXES
from mmalign_runtime.image import decode_image
from mmalign_runtime.image.formats import ImageFormat, sniff_format
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES, SUFFIXES_OF_FORMAT
from mmalign_runtime.spec import ImageSpec

# Names that Pillow does not write under by itself; HEIF needs a package that is not always there.
NOT_WRITTEN = {"HEIF", "QOI"}


def test_every_decoded_format_has_names_and_no_other_has() -> None:
    assert set(SUFFIXES_OF_FORMAT) == set(get_args(ImageFormat))


def test_a_name_belongs_to_one_format_in_lower_case() -> None:
    listed = [suffix for suffixes in SUFFIXES_OF_FORMAT.values() for suffix in suffixes]
    assert len(listed) == len(set(listed)) == len(IMAGE_SUFFIXES)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in listed)


def test_embed_lists_by_the_same_table() -> None:
    assert BULK_SUFFIXES is IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".ppm", ".jp2", ".heic", ".mpo", ".dib", ".avif"])
def test_the_names_that_were_left_out_are_there(suffix: str) -> None:
    assert suffix in IMAGE_SUFFIXES


@pytest.mark.parametrize("name", sorted(SUFFIXES_OF_FORMAT.keys() - NOT_WRITTEN))
def test_what_pillow_writes_in_a_format_is_decoded(name: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(buffer, name)
    assert sniff_format(buffer.getvalue()) == name
    assert decode_image(buffer.getvalue(), ImageSpec(), index=0).shape == (6, 8, 3)

"""What is fuzzed: functions of bytes that return when the answer is right or a named error says why there is none.

Anything else, another exception, wrong pixels, a spec that does not survive being written, leaves as an exception and
is a bug. No atheris here: the corpus is replayed by plain pytest. No onnxruntime either.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from mmalign_runtime.errors import BundleError, BundleFormatError, ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import BundleSpec, ImageSpec, Precision, decode_spec, encode_spec

IMAGE_SPECS = (ImageSpec(), ImageSpec(resize="shortest_edge"))
# A folder in memory where there is one: the archive target writes a file an execution.
SHARED_MEMORY = Path("/dev/shm")


def check_image(data: bytes) -> None:
    """Decode bytes as an image: pixels (H, W, 3) uint8 within the spec's limit, or an ItemError that names a stage."""
    for spec in IMAGE_SPECS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damage that it can live with
            try:
                pixels = decode_image(data, spec)
            except ItemError as error:
                assert error.stage in ("open", "decode"), error.stage
                assert error.reason
                continue
        assert pixels.dtype == np.uint8, pixels.dtype
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and 0 not in pixels.shape, pixels.shape
        assert pixels.flags.c_contiguous
        assert pixels.shape[0] * pixels.shape[1] <= spec.limits.max_pixels, pixels.shape


def check_bundle(data: bytes) -> None:
    """Decode bytes as bundle.json: a spec whose methods work and that reads back the same, or a BundleFormatError."""
    try:
        spec = decode_spec(data)
    except BundleFormatError:
        return
    _check_spec(spec)


def check_archive(data: bytes) -> None:
    """Open bytes as a .mmalign file, hashes and all: a bundle whose files read as listed, or a BundleError."""
    from mmalign_runtime.bundle import open_bundle  # the other targets need none of it

    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".mmalign") as file:
        file.write(data)
        file.flush()
        try:
            bundle = open_bundle(file.name, use_memory=False)
        except BundleError:
            return
        _check_spec(bundle.spec)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image": check_image,
    "bundle": check_bundle,
    "archive": check_archive,
}


def _check_spec(spec: BundleSpec) -> None:
    assert isinstance(spec, BundleSpec)
    offered = spec.precisions()
    assert set(offered) <= set(get_args(Precision))
    for precision in offered:
        try:
            spec.variant_id(precision)
        except BundleFormatError:
            continue
    again = decode_spec(encode_spec(spec))
    assert msgspec.structs.replace(again, seal="") == msgspec.structs.replace(spec, seal="")

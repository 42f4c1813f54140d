"""Bits flipped and files cut: whoever reads them refuses by name, or gives what was there before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import BundleError, BundleFormatError, InputError, ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.saved import SavedVectors, load_vectors, save_vectors
from mmalign_runtime.spec import SPEC_NAME, ImageSpec, decode_spec
from tests.trials import num_trials


@contextmanager
def contents(path: Path, changed: bytes, *, keep_times: bool = False) -> Iterator[None]:
    """Let a file be another one for the block; a failing disk changes it and not its times."""
    whole, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(changed)
    if keep_times:
        os.utime(path, ns=times)
    yield
    path.write_bytes(whole)


def flipped(whole: bytes, at: int) -> bytes:
    """Flip one bit; `at` counts bits."""
    changed = bytearray(whole)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def places(length: int, few: int) -> list[int]:
    """Return places spread over a file, each drawn from its part, and no place twice."""
    draw, count = random.Random(length), min(length, num_trials(few))
    return [length * part // count + draw.randrange(max(1, length // count)) for part in range(count)]


def test_a_bit_flipped_in_any_file_of_a_bundle_or_a_cut_is_named(tiny_bundle: Path) -> None:
    open_bundle(tiny_bundle)  # hashes are remembered from here on
    for path in (path for path in sorted(tiny_bundle.rglob("*")) if path.is_file()):
        whole, name = path.read_bytes(), path.relative_to(tiny_bundle).as_posix()
        damaged = [flipped(whole, at) for at in places(8 * len(whole), 1)]
        damaged += [whole[:at] for at in places(len(whole), 1)]
        for number, changed in enumerate(damaged):
            with (
                contents(path, changed, keep_times=(number + len(whole)) % 2 == 0),
                pytest.raises(BundleError, match=name),
            ):
                open_bundle(tiny_bundle)
    open_bundle(tiny_bundle)


def test_no_bit_of_bundle_json_changes_unseen(tiny_bundle: Path) -> None:
    """It holds the hashes of all else. What may pass says the same: 1e-7 and 1E-7 are one number."""
    whole = (tiny_bundle / SPEC_NAME).read_bytes()
    spec = decode_spec(whole)
    for at in places(8 * len(whole), 400):
        with suppress(BundleFormatError):
            assert decode_spec(flipped(whole, at)) == spec, f"bit {at} changed"


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_damaged_vectors_are_refused_or_the_very_same(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
    path, vectors = tmp_path / f"vectors{suffix}", np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    save_vectors(path, SavedVectors(tuple(map(str, range(20))), vectors, "space", "fp32-variant"))
    whole = path.read_bytes()
    for at in places(8 * len(whole), 60):
        with contents(path, flipped(whole, at)), suppress(InputError):
            np.testing.assert_array_equal(load_vectors(path).vectors, vectors)
    for at in places(len(whole), 20):
        with contents(path, whole[:at]), pytest.raises(InputError, match=path.name):
            load_vectors(path)


def test_a_cut_image_is_refused_or_gives_all_of_its_pixels(tiny_bundle: Path) -> None:
    """Some are complete before their last byte: the first frame of an animation is."""
    for path in (path for path in (tiny_bundle / "golden").iterdir() if path.suffix != ".json"):
        whole = path.read_bytes()
        pixels = decode_image(whole, ImageSpec())
        for at in places(len(whole), 4):
            with suppress(ItemError):
                np.testing.assert_array_equal(decode_image(whole[:at], ImageSpec()), pixels, err_msg=path.name)

"""The tiny bundle's bundle.json: as it was written, in format 1, and as it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign_runtime.spec import BundleSpec, decode_spec

_BUNDLE_JSON = Path(__file__).parents[1] / "fixtures" / "tiny_bundle" / "bundle.json"


@pytest.fixture
def raw1() -> bytes:
    """The bytes of a bundle.json of format 1."""
    return _BUNDLE_JSON.read_bytes()


@pytest.fixture
def spec(raw1: bytes) -> BundleSpec:
    """What it says."""
    return decode_spec(raw1)

"""Tiny, seeded, real: a run of random towers and the bundle that the exporter makes of it, once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.run import Run
from mmalign_export import export_model
from tests.make_tiny_bundle import tiny_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def bundle_dir(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bundle. Copy it before changing anything in it."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    export_model(run, (), out)
    return out

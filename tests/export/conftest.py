"""Tiny, seeded, real: a run of random towers and the bundle that the exporter makes of it, once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.dual_model import DualModel
from mmalign.run import Run
from mmalign.run_model import dual_model
from mmalign_export import export_model
from tests.make_tiny_bundle import tiny_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def model(run: Run) -> DualModel:
    return dual_model(run)


@pytest.fixture(scope="session")
def bundle_dir(model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bundle. Copy it before changing anything in it."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    export_model(model, out)
    return out

"""Golden images that are quick to embed: one of each kind that libraries read, and some that they read otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign_export.golden import GoldenFile, golden_files
from tests.export.sources.tiny import save_tiny

_KEPT = ("landscape 3x2", "portrait 9x16", "odd size", "tiny", "grey", "RGBA", "palette", "CMYK", "EXIF orientation 6")


@pytest.fixture(scope="session")
def image_files() -> list[GoldenFile]:
    return [file for file in golden_files(()) if file.name in _KEPT]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny model of a family, written once. Copy it before changing anything in it."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = save_tiny(family, tmp_path_factory.mktemp("saved") / family.replace(", ", "_"))
        return folders[family]

    return folder

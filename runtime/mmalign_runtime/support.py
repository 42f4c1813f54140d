"""What the format can say and this version does not compute: refused by name before anything is loaded."""

from __future__ import annotations

from mmalign_runtime.errors import BundleFeatureError
from mmalign_runtime.spec import ImageTower, TextTower, Tower
from mmalign_runtime.text_cleaning import find_cleaner


def check_supported(name: str, tower: Tower) -> None:
    """Raise BundleFeatureError or MissingDependencyError where the items of a tower cannot be prepared as it says."""
    if isinstance(tower, ImageTower) and tower.spec.resize == "naflex":
        raise BundleFeatureError(
            f"the {name} tower takes patches at a picture's own ratio (resize 'naflex'), and this version resizes to "
            "one size. Import a model of a fixed size, or update: `pip install -U mmalign-runtime`."
        )
    if isinstance(tower, TextTower):
        find_cleaner(tower.spec.cleaning)

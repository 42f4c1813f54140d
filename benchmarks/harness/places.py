"""Where things lie. Imports nothing of the project: workers of other environments read it too."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/against"
FASTEMBED_PYTHON = ROOT / ".against/fastembed/bin/python"
PHOTO = ROOT / "export/mmalign_export/photo/grace_hopper.jpg"
DEMO_BUNDLE, FIXTURE = ROOT / "demo/bundle", ROOT / "tests/runtime/fixtures/tiny_bundle"


def bundle_at_hand() -> Path:
    """Return the demo's bundle, or the tests' tiny one where no demo was made."""
    return DEMO_BUNDLE if DEMO_BUNDLE.is_dir() else FIXTURE

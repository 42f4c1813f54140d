"""Where things lie, for scripts that must not import what the comparison does."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/against"
FASTEMBED_PYTHON = ROOT / ".against/fastembed/bin/python"

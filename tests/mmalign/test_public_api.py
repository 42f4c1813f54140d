from __future__ import annotations

import subprocess
import sys

import mmalign


def test_public_names_are_sorted_and_load() -> None:
    assert mmalign.__all__ == sorted(mmalign.__all__)
    assert all(getattr(mmalign, name).__name__ == name for name in mmalign.__all__)


def test_the_command_line_loads_no_torch() -> None:
    code = "import sys, mmalign.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

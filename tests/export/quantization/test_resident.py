from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.trial import resident_mb
from tests.export.quantization.tiny_models import OPTIONS, turned

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status, which Linux has")


def test_a_process_of_its_own_says_how_much_it_grew() -> None:
    found = resident_mb(turned(0.0).SerializeToString(), {"x": np.ones((1, 2), np.float32)}, OPTIONS)
    assert found is not None
    assert found > 0


def test_a_model_that_does_not_run_is_an_error() -> None:
    with pytest.raises(QuantizationError, match="failed in a process of its own"):
        resident_mb(b"no model", {"x": np.ones((1, 2), np.float32)}, OPTIONS)


def test_that_process_holds_no_torch() -> None:
    # It would count in what is measured before, and take seconds a candidate.
    code = "import sys, mmalign_export.quantization.trial; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

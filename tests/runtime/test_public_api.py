import os
import subprocess
import sys

import pytest

import mmalign_runtime

HEAVY = ("mmalign", "onnx", "onnxruntime", "torch", "transformers")


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert mmalign_runtime.__all__ == sorted(mmalign_runtime.__all__)
    assert dir(mmalign_runtime) == mmalign_runtime.__all__
    for name in mmalign_runtime.__all__:
        assert getattr(mmalign_runtime, name).__module__.startswith("mmalign_runtime.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Embeder'"):
        mmalign_runtime.Embeder  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import mmalign_runtime",
        "import mmalign_runtime.cli",
        "import mmalign_runtime.embedder, mmalign_runtime.bulk.sources",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == ""

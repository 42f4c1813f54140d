"""Writes what makes a folder a bundle: the golden cases, and the spec with every file's hash."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import msgspec

from mmalign.fingerprint import space_id
from mmalign.run import Run
from mmalign.weights import PACKAGED, PYPI_PREFIX
from mmalign_export.side_files import TOKENIZER
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import (
    AOTINDUCTOR,
    ONNX,
    SPEC_NAME,
    Artifact,
    BundleSpec,
    ImageTower,
    Modality,
    Parity,
    Provenance,
    Similarity,
    Source,
    TextInputs,
    TextTower,
    Tower,
    encode_spec,
)

# By engine and tower, what was measured of its vectors.
Proven: TypeAlias = Mapping[str, Mapping[Modality, Parity]]

VISION_MODEL = "onnx/vision_model.onnx"
TEXT_MODEL = "onnx/text_model.onnx"
PREPROCESS = "onnx/image_preprocess.onnx"
VISION_AOTI = "aoti/vision_model.pt2"
TEXT_AOTI = "aoti/text_model.pt2"
GOLDEN = "golden/cases.json"
CARD = "README.md"

# The files that an export may write, by engine.
_FILES: dict[str, dict[Modality, str]] = {
    ONNX: {"image": VISION_MODEL, "text": TEXT_MODEL},
    AOTINDUCTOR: {"image": VISION_AOTI, "text": TEXT_AOTI},
}

_RECORDED = (
    "mmalign",
    "mmalign-export",
    "mmalign-runtime",
    "torch",
    "onnx",
    "onnxruntime",
    "transformers",
    "timm",
    "pillow",
)


def write_golden(golden: Golden, folder: Path) -> None:
    """Write golden/cases.json."""
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))


def write_spec(run: Run, folder: Path, proven: Proven, opset_version: int) -> BundleSpec:
    """Hash every file of the folder and write bundle.json over them."""
    config = run.config
    spec = BundleSpec(
        space_id=space_id(run.model, config.image, config.text, run.tokenizer),
        embed_dim=run.model.config.embed_dim,
        similarity=Similarity(kind="softmax", scale=run.model.scale().item()),
        towers=_towers(run),
        artifacts=_artifacts(folder, proven),
        golden=GOLDEN,
        provenance=_provenance(run, opset_version),
        files=hashes(folder),
    )
    (folder / SPEC_NAME).write_bytes(encode_spec(spec))
    return spec


def _towers(run: Run) -> dict[str, Tower]:
    config, model = run.config, run.model
    return {
        "image": ImageTower(
            spec=config.image,
            preprocess=PREPROCESS,
            architecture=config.image_tower.name,
            width=model.image_tower.feature_dim,
        ),
        "text": TextTower(
            spec=config.text,
            tokenizer=TOKENIZER,
            architecture=config.text_tower.name,
            width=model.text_tower.feature_dim,
            inputs=TextInputs(attention_mask="attention_mask"),
        ),
    }


def _artifacts(folder: Path, proven: Proven) -> tuple[Artifact, ...]:
    """Return what is in the folder, and what was held to PyTorch without a file of it."""
    kept = [
        Artifact(tower=tower, engine=engine, file=name, parity=proven.get(engine, {}).get(tower))
        for engine, names in _FILES.items()
        for tower, name in names.items()
        if (folder / name).exists()
    ]
    checked = [
        Artifact(tower=tower, engine=engine, parity=parity)
        for engine in proven.keys() - _FILES.keys()
        for tower, parity in proven[engine].items()
    ]
    return (*kept, *checked)


def _provenance(run: Run, opset_version: int) -> Provenance:
    sources = (*run.config.data.sources, *run.config.data.held_out)
    names = {PYPI_PREFIX + package: entry.licence for package, entry in PACKAGED.items()}
    towers = (run.config.image_tower.name, run.config.text_tower.name)
    licences = sorted({f"{name}: {names[name]}" for name in towers if name in names})
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=Source(kind="run", name=run.folder.path.name, library="mmalign", version=version("mmalign")),
        data=tuple(Path(source.path).name for source in sources),
        opset_version=opset_version,
        versions={name: version(name) for name in _RECORDED},
        weights_licence="; ".join(licences) or "unknown: see the origin of the pretrained weights",
    )


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a bundle but bundle.json, by its path from the folder."""
    listed = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SPEC_NAME)
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in listed}

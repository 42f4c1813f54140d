"""Writes what makes a folder a bundle: the golden cases, and the spec with every file's hash."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from mmalign.dual_model import DualModel, ModelOrigin
from mmalign.signature import ATTENTION_MASK
from mmalign.space import space_id
from mmalign_export.errors import FormatLimitError
from mmalign_export.side_files import TOKENIZER
from mmalign_export.to_onnx import external_name
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import (
    AOTINDUCTOR,
    FORMAT_VERSION,
    ONNX,
    REGIONS,
    SCORES,
    SPEC_NAME,
    Artifact,
    BundleSpec,
    ImageInputs,
    ImageTower,
    ImportRecord,
    Parity,
    Provenance,
    Source,
    TextInputs,
    TextTower,
    Tower,
    encode_spec,
)

# By engine and tower, or another graph, what was measured of what it gives.
Proven: TypeAlias = Mapping[str, Mapping[str, Parity]]

PREPROCESS = "onnx/image_preprocess.onnx"
GOLDEN = "golden/cases.json"
CARD = "README.md"

# The files that an export may write, by engine.
TOWER_FILES: dict[str, dict[str, str]] = {
    ONNX: {
        "image": "onnx/vision_model.onnx",
        "text": "onnx/text_model.onnx",
        REGIONS: "onnx/region_model.onnx",
        SCORES: "onnx/score_model.onnx",
    },
    AOTINDUCTOR: {"image": "aoti/vision_model.pt2", "text": "aoti/text_model.pt2"},
}

# What exported; the libraries that made the model are recorded by its origin.
_RECORDED = ("mmalign-export", "mmalign-runtime", "torch", "onnx", "onnxruntime", "pillow")
_TEXT_INPUTS = (("input_ids",), ("input_ids", ATTENTION_MASK))


def check_format(model: DualModel) -> None:
    """Raise FormatLimitError for a model of which the bundle format cannot say all."""
    image, text = model.image, model.text
    beyond = [f"a tower {name!r}" for name in model.towers if name not in TOWER_FILES[AOTINDUCTOR]]
    if len(image.input_names) != 1:
        beyond.append(f"an image tower with the inputs {', '.join(image.input_names)}")
    if text.input_names not in _TEXT_INPUTS:
        beyond.append(f"a text tower with the inputs {', '.join(text.input_names)}")
    if beyond:
        raise FormatLimitError(
            f"bundle format {FORMAT_VERSION} has no place for {'; '.join(beyond)}. It holds an image tower of one "
            f"input, and a text tower of input_ids, with or without {ATTENTION_MASK}. Give the model these inputs."
        )


def write_golden(golden: Golden, folder: Path) -> None:
    """Write golden/cases.json."""
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))


def write_spec(model: DualModel, folder: Path, opset_version: int) -> BundleSpec:
    """Hash every file of the folder and write bundle.json over them, of which nothing is proven yet."""
    spec = BundleSpec(
        space_id=space_id(model),
        embed_dim=model.embed_dim,
        similarity=model.similarity,
        towers=_towers(model),
        artifacts=_artifacts(folder, {}),
        golden=GOLDEN,
        provenance=_provenance(model.origin, opset_version),
        files=hashes(folder),
        prefix_dims=model.prefix_dims,
        attention=None if model.attention is None else model.attention.spec,
    )
    (folder / SPEC_NAME).write_bytes(encode_spec(spec))
    return spec


def with_proof(spec: BundleSpec, folder: Path, proven: Proven, record: ImportRecord | None) -> BundleSpec:
    """Return the spec with what was measured of its artifacts."""
    provenance = msgspec.structs.replace(spec.provenance, imported=record)
    return msgspec.structs.replace(spec, artifacts=_artifacts(folder, proven), provenance=provenance)


def write_sealed(spec: BundleSpec, folder: Path) -> BundleSpec:
    """Hash what was written since the spec was made, which towers were not, and write bundle.json over all of it."""
    towers = {name for each in spec.artifacts for name in (each.file, *each.external)}
    known = {name: sha256 for name, sha256 in spec.files.items() if name in towers}
    sealed = msgspec.structs.replace(spec, files=hashes(folder, known))
    (folder / SPEC_NAME).write_bytes(encode_spec(sealed))
    return sealed


def _towers(model: DualModel) -> dict[str, Tower]:
    image, text = model.image, model.text
    return {
        "image": ImageTower(
            spec=image.spec,
            preprocess=PREPROCESS,
            architecture=image.architecture,
            width=image.feature_dim,
            inputs=ImageInputs(pixel_values=image.input_names[0]),
            output=image.output_name,
        ),
        "text": TextTower(
            spec=text.spec,
            tokenizer=TOKENIZER,
            architecture=text.architecture,
            width=text.feature_dim,
            inputs=TextInputs(**dict(zip(("input_ids", "attention_mask"), text.input_names, strict=False))),
            output=text.output_name,
        ),
    }


def _artifacts(folder: Path, proven: Proven) -> tuple[Artifact, ...]:
    """Return what is in the folder, and what was held to PyTorch without a file of it."""
    kept = [
        Artifact(
            tower=tower,
            engine=engine,
            file=name,
            external=tuple(each for each in (external_name(name),) if (folder / each).exists()),
            parity=proven.get(engine, {}).get(tower),
        )
        for engine, names in TOWER_FILES.items()
        for tower, name in names.items()
        if (folder / name).exists()
    ]
    checked = [
        Artifact(tower=tower, engine=engine, parity=parity)
        for engine in proven.keys() - TOWER_FILES.keys()
        for tower, parity in proven[engine].items()
    ]
    return (*kept, *checked)


def _provenance(origin: ModelOrigin, opset_version: int) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=Source(
            kind=origin.kind,
            name=origin.name,
            library=origin.library,
            version=origin.versions.get(origin.library, ""),
            files=origin.files,
        ),
        data=origin.data,
        opset_version=opset_version,
        versions=origin.versions | {name: version(name) for name in _RECORDED},
        weights_licence=origin.weights_licence,
    )


def hashes(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return the sha256 of every file of a bundle but bundle.json, by its path from the folder; take those known."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SPEC_NAME)
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: known.get(name) or sha256_of_file(path) for name, path in named.items()}

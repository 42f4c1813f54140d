"""Writes what makes a folder a bundle: the golden cases, and the spec with every file's hash."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from mmalign.dual_model import DualModel, ModelOrigin
from mmalign.signature import ATTENTION_MASK
from mmalign.space import space_id
from mmalign_export.errors import FormatLimitError
from mmalign_export.side_files import TOKENIZER
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import (
    FORMAT_VERSION,
    SPEC_NAME,
    BundleSpec,
    ImageTowerFiles,
    Parity,
    Provenance,
    TextTowerFiles,
    encode_spec,
)

PREPROCESS = "onnx/image_preprocess.onnx"
GOLDEN = "golden/cases.json"
CARD = "README.md"


class TowerPaths(msgspec.Struct, frozen=True):
    """Where a bundle keeps a tower: its ONNX file and its AOTInductor package."""

    onnx: str
    aoti: str


TOWER_PATHS: dict[str, TowerPaths] = {
    "image": TowerPaths("onnx/vision_model.onnx", "aoti/vision_model.pt2"),
    "text": TowerPaths("onnx/text_model.onnx", "aoti/text_model.pt2"),
}

# What exported; the libraries that made the model are recorded by its origin.
_RECORDED = ("mmalign-export", "mmalign-runtime", "torch", "onnx", "onnxruntime", "pillow")


def check_format(model: DualModel) -> None:
    """Raise FormatLimitError for a model of which bundle format 1 cannot say all."""
    image, text, similarity = model.image, model.text, model.similarity
    beyond = [f"a tower {name!r}" for name in model.towers if name not in ("image", "text")]
    if len(image.input_names) != 1:
        beyond.append(f"an image tower with the inputs {', '.join(image.input_names)}")
    if text.input_names != ("input_ids", ATTENTION_MASK):
        beyond.append(f"a text tower with the inputs {', '.join(text.input_names)}")
    if similarity.kind != "softmax":
        beyond.append(f"a {similarity.kind} similarity with a bias of {similarity.bias}")
    if beyond:
        raise FormatLimitError(
            f"bundle format {FORMAT_VERSION} has no place for {'; '.join(beyond)}. It holds an image tower of one "
            f"input, a text tower of input_ids and {ATTENTION_MASK}, and a softmax. Give the model these inputs."
        )


def write_golden(golden: Golden, folder: Path) -> None:
    """Write golden/cases.json."""
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))


def write_spec(model: DualModel, folder: Path, parity: tuple[Parity, ...], opset_version: int) -> BundleSpec:
    """Hash every file of the folder and write bundle.json over them."""
    image, text = model.image, model.text
    aoti = {name: paths.aoti if (folder / paths.aoti).exists() else None for name, paths in TOWER_PATHS.items()}
    spec = BundleSpec(
        format_version=FORMAT_VERSION,
        space_id=space_id(model),
        embed_dim=model.embed_dim,
        logit_scale=model.similarity.scale,
        image=ImageTowerFiles(
            spec=image.spec,
            preprocess=PREPROCESS,
            models={"fp32": TOWER_PATHS["image"].onnx},
            architecture=image.architecture,
            aoti=aoti["image"],
            input_name=image.input_names[0],
            output_name=image.output_name,
        ),
        text=TextTowerFiles(
            spec=text.spec,
            tokenizer=TOKENIZER,
            models={"fp32": TOWER_PATHS["text"].onnx},
            architecture=text.architecture,
            aoti=aoti["text"],
            output_name=text.output_name,
        ),
        parity=parity,
        golden=GOLDEN,
        provenance=_provenance(model.origin, opset_version),
        files=hashes(folder),
    )
    (folder / SPEC_NAME).write_bytes(encode_spec(spec))
    return spec


def _provenance(origin: ModelOrigin, opset_version: int) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=origin.name,
        data=origin.data,
        opset_version=opset_version,
        versions=origin.versions | {name: version(name) for name in _RECORDED},
        weights_licence=origin.weights_licence,
    )


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a bundle but bundle.json, by its path from the folder."""
    listed = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SPEC_NAME)
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in listed}

"""Writes what makes a folder a bundle: the golden cases, and the spec with every file's hash."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from mmalign.fingerprint import space_id
from mmalign.run import Run
from mmalign.weights import PACKAGED, PYPI_PREFIX
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

VISION_MODEL = "onnx/vision_model.onnx"
TEXT_MODEL = "onnx/text_model.onnx"
PREPROCESS = "onnx/image_preprocess.onnx"
VISION_AOTI = "aoti/vision_model.pt2"
TEXT_AOTI = "aoti/text_model.pt2"
GOLDEN = "golden/cases.json"
CARD = "README.md"

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


def write_spec(run: Run, folder: Path, parity: tuple[Parity, ...], opset_version: int) -> BundleSpec:
    """Hash every file of the folder and write bundle.json over them."""
    has_aoti = (folder / VISION_AOTI).exists()
    config = run.config
    spec = BundleSpec(
        format_version=FORMAT_VERSION,
        space_id=space_id(run.model, config.image, config.text, run.tokenizer),
        embed_dim=run.model.config.embed_dim,
        logit_scale=run.model.scale().item(),
        image=ImageTowerFiles(
            spec=config.image,
            preprocess=PREPROCESS,
            models={"fp32": VISION_MODEL},
            architecture=config.image_tower.name,
            aoti=VISION_AOTI if has_aoti else None,
        ),
        text=TextTowerFiles(
            spec=config.text,
            tokenizer=TOKENIZER,
            models={"fp32": TEXT_MODEL},
            architecture=config.text_tower.name,
            aoti=TEXT_AOTI if has_aoti else None,
        ),
        parity=parity,
        golden=GOLDEN,
        provenance=_provenance(run, opset_version),
        files=hashes(folder),
    )
    (folder / SPEC_NAME).write_bytes(encode_spec(spec))
    return spec


def _provenance(run: Run, opset_version: int) -> Provenance:
    sources = (*run.config.data.sources, *run.config.data.held_out)
    names = {PYPI_PREFIX + package: entry.licence for package, entry in PACKAGED.items()}
    towers = (run.config.image_tower.name, run.config.text_tower.name)
    licences = sorted({f"{name}: {names[name]}" for name in towers if name in names})
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run.folder.path.name,
        data=tuple(Path(source.path).name for source in sources),
        opset_version=opset_version,
        versions={name: version(name) for name in _RECORDED},
        weights_licence="; ".join(licences) or "unknown: see the origin of the pretrained weights",
    )


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a bundle but bundle.json, by its path from the folder."""
    listed = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SPEC_NAME)
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in listed}

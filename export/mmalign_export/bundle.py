"""Writes a bundle: the files other tools read, and the spec with every file's hash."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from mmalign.fingerprint import space_id
from mmalign.run import Run
from mmalign.weights import PACKAGED, PYPI_PREFIX
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
TOKENIZER = "tokenizer.json"
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
# transformers' numbers for Pillow's filters
_RESAMPLE = {"bilinear": 2, "bicubic": 3}


def write_side_files(run: Run, folder: Path) -> None:
    """Write the tokenizer and the two JSON files that transformers and transformers.js look for."""
    run.tokenizer.save(str(folder / TOKENIZER))
    _write_json(folder / "preprocessor_config.json", _preprocessor_config(run))
    model = run.model
    contents = {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": model.config.embed_dim,
        "logit_scale_init_value": model.logit_scale.item(),
        "text_config": model.text_tower.encoder.config.to_dict(),
    }
    _write_json(folder / "config.json", contents)


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


def _preprocessor_config(run: Run) -> dict[str, object]:
    image = run.config.image
    is_squash = image.resize == "squash"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": image.size, "width": image.size} if is_squash else {"shortest_edge": image.shortest_edge},
        "resample": _RESAMPLE[image.interpolation],
        "do_center_crop": not is_squash,
        "crop_size": {"height": image.size, "width": image.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }


def _write_json(path: Path, contents: dict[str, object]) -> None:
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")

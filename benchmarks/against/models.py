"""The models that are compared, and the files each peer takes them from: one set of weights in several shapes."""

import json
import shutil
from pathlib import Path

import msgspec

from benchmarks.against.protocol import ModelFiles
from benchmarks.reference.bundle import export_reference, reference_run
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import TextTower

REFERENCE, DEMO = "reference", "demo"
ARCHITECTURES = {REFERENCE: "ResNet-50 and BERT-base", DEMO: "EfficientNet-Lite0 and MiniLM"}


class ModelSource(msgspec.Struct, frozen=True):
    """A bundle and the run it was exported from."""

    name: str
    bundle: Path
    run: Path


def tower_name(model: str, kind: str) -> str:
    """Return the architecture of one of a model's towers."""
    image, text = ARCHITECTURES[model].split(" and ")
    return image if kind == "image" else text


def reference_source(bundle: Path | None, cache: Path) -> ModelSource:
    """Return the reference architecture; what is not given is made in `cache`: its run, and its bundle (minutes)."""
    run = cache / "reference_run"
    if not (run / "config.toml").is_file():
        reference_run(run)
    if bundle is None:
        bundle = cache / "reference_bundle"
        if not bundle.is_dir():
            export_reference(bundle)
    return ModelSource(REFERENCE, bundle, run)


def demo_source(demo: Path) -> ModelSource:
    """Return what `make demo` leaves."""
    return ModelSource(DEMO, demo / "bundle", demo / "run")


def prepare_files(source: ModelSource, cache: Path) -> ModelFiles:
    """Write what fastembed takes beside an .onnx file, and return where everything lies."""
    spec = open_bundle(source.bundle).spec
    image, text = (cache / "fastembed" / source.name / kind for kind in ("image", "text"))
    for folder in (image, text):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    shutil.copyfile(source.bundle / spec.artifact("image").file, image / "model.onnx")
    shutil.copyfile(source.bundle / "preprocessor_config.json", image / "preprocessor_config.json")
    shutil.copyfile(source.bundle / spec.artifact("text").file, text / "model.onnx")
    shutil.copyfile(source.bundle / spec.tower("text", TextTower).tokenizer, text / "tokenizer.json")
    words = spec.tower("text", TextTower).spec
    described = {"model_max_length": words.context_length, "pad_token": words.pad_token}
    (text / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return ModelFiles(str(source.bundle.resolve()), str(source.run.resolve()), str(image), str(text))

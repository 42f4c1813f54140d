"""A tiny BERT with biases and channels that differ, as a trained one has, fused and with what flows through it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest
import torch
from onnx import ModelProto

from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign_export import export_model
from mmalign_export.quantization.activations import Activations, image_items, record_activations, text_items
from mmalign_export.quantization.data import prepared_images
from mmalign_export.quantization.fusion import fuse_transformer
from mmalign_export.quantization.recipes import eight_bit_recipes
from mmalign_export.quantization.sites import Site, find_sites
from mmalign_export.quantization.trial import Speed
from mmalign_export.quantization.variant import add_variant
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.cli import main
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import Modality, TextInputs
from mmalign_runtime.tokenizer import TokenBatch
from tests.export.quantization.tiny_models import make_report
from tests.make_tiny_bundle import tiny_run
from tests.shared import made_once

CANNOT_RUN = 2
INPUTS = TextInputs(attention_mask="attention_mask")
INPUT_NAMES = INPUTS.names()
TEXTS = [
    "a dog",
    "the quick brown fox jumps over the lazy dog",
    "a photo of a dog running on the beach",
    "best seller",
    "good fox",
    "brown beach",
]


class TinyBert(msgspec.Struct, frozen=True):
    """A model as exported, fused, its sites, what flows into them, and the texts that it is asked about."""

    exported: ModelProto
    fused: ModelProto
    sites: tuple[Site, ...]
    activations: dict[str, Activations]
    batches: tuple[TokenBatch, ...]

    @property
    def feeds(self) -> Feeds:
        """All texts in one batch, short ones padded."""
        return {"input_ids": self.batches[0].input_ids, "attention_mask": self.batches[0].attention_mask}

    def named(self, role: str) -> Site:
        """The first site of a role."""
        return next(site for site in self.sites if site.role == role)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """As the other tests' run, but with a text tower as trained ones are: biases, channels that stand out."""
    run = tiny_run(tmp_path_factory.mktemp("run"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in run.model.text_tower.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("LayerNorm.weight"):
                parameter.copy_(torch.exp(0.5 * noise))
            elif parameter.ndim == 1:
                parameter.copy_(0.5 * noise)
            elif "embeddings" not in name:
                parameter.copy_(0.15 * noise)
    return run


@pytest.fixture(scope="session")
def bundle_dir(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bundle of that run. Copy it before changing anything in it."""
    return made_once(tmp_path_factory, "spread", lambda out: export_model(dual_model(run), out))


@pytest.fixture(scope="session")
def bert(bundle_dir: Path, run: Run) -> TinyBert:
    tokenizer = dual_model(run).text.bound_tokenizer
    exported = onnx.load(bundle_dir / "onnx/text_model.onnx")
    fused = fuse_transformer(exported)
    sites = find_sites(fused)
    batches = (tokenizer.encode(TEXTS), tokenizer.encode(TEXTS[:2]))
    found = record_activations(fused, {site.source for site in sites}, text_items(batches, INPUTS, is_padded=False))
    return TinyBert(exported, fused, sites, found, batches)


@pytest.fixture(scope="session")
def int8_models(bundle_dir: Path) -> dict[Modality, bytes]:
    """Both towers of the tiny bundle in eight bits, calibrated on its golden cases."""
    with Embedder.load(bundle_dir, provider="cpu") as embedder:
        golden = load_golden(embedder.bundle)
        images = prepared_images([embedder.bundle.source(case.file) for case in golden.images], embedder)
        tokens = embedder.text.tokenizer.encode([case.text for case in golden.texts])
        items = image_items(images, "pixel_values")
        image = eight_bit_recipes(bundle_dir / embedder.bundle.spec.artifact("image").file, items, {})[0]
        items = text_items([tokens], INPUTS, is_padded=False)
        text = eight_bit_recipes(bundle_dir / embedder.bundle.spec.artifact("text").file, items, {})[0]
    return {
        "image": image.build(frozenset()).SerializeToString(),
        "text": text.build(frozenset()).SerializeToString(),
    }


@pytest.fixture(scope="session")
def quantized_dir(
    bundle_dir: Path, int8_models: dict[Modality, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle with both. Copy it before changing anything in it."""
    out = tmp_path_factory.mktemp("quantized") / "bundle"
    add_variant(open_bundle(bundle_dir), int8_models, make_report("image", "text"), out, force=False)
    return out


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is twice as fast as float32, and keeps 1 MB."""
    monkeypatch.setattr(
        "mmalign_export.quantization.search.time_beside",
        lambda session, float32, feeds: Speed(len(next(iter(feeds.values()))), 1.0, 2.0),
    )
    for module in ("tower_search", "search"):
        monkeypatch.setattr(f"mmalign_export.quantization.{module}.resident_mb", lambda *_: 1.0)


def run_quantize(*args: str | Path) -> int:
    """Run the command, and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["quantize", *(str(arg) for arg in args)])
    assert isinstance(stop.value.code, int)
    return stop.value.code

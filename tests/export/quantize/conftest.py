"""A tiny BERT with biases and channels that differ, as a trained one has, fused and with what flows through it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto

from mmalign_export.quantize.activations import Activations, record_activations
from mmalign_export.quantize.fusion import fuse_transformer
from mmalign_export.quantize.sites import Site, find_sites
from mmalign_export.to_onnx import export_onnx
from mmalign_export.towers import text_tower
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.tokenizer import TokenBatch
from tests.make_tiny_bundle import tiny_run

INPUT_NAMES = ("input_ids", "attention_mask")
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
def text_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tiny_run(tmp_path_factory.mktemp("bert"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in run.model.text_tower.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("LayerNorm.weight"):
                parameter.copy_(torch.exp(0.5 * noise))  # channels that stand out
            elif parameter.ndim == 1:
                parameter.copy_(0.5 * noise)
            elif "embeddings" not in name:
                parameter.copy_(0.15 * noise)
    path = tmp_path_factory.mktemp("bert") / "text_model.onnx"
    export_onnx(text_tower(run.model, run.config.text), path)
    return path


@pytest.fixture(scope="session")
def bert(text_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyBert:
    tokenizer = tiny_run(tmp_path_factory.mktemp("tokenizer")).text_tokenizer()
    exported = onnx.load(text_model_path)
    fused = fuse_transformer(exported)
    sites = find_sites(fused)
    batches = (tokenizer.encode(TEXTS), tokenizer.encode(TEXTS[:2]))
    found = record_activations(fused, {site.source for site in sites}, batches, INPUT_NAMES)
    assert all(np.isfinite(each.low).all() for each in found.values())
    return TinyBert(exported, fused, sites, found, batches)

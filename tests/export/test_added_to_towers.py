"""Runs with adapters and with a pool over tokens, from training to what is served: as if towers had always been so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import load_config
from mmalign.evaluation import evaluate
from mmalign.run import join_run, load_run
from mmalign.run.model import dual_model
from mmalign.space import space_id
from mmalign.training import train
from mmalign_export import export, read_source
from mmalign_export.quantization.fusion import fuse_transformer
from mmalign_export.quantization.sites import find_sites
from mmalign_export.to_onnx import export_onnx
from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.verify import verify_bundle
from tests.tolerances import BATCH_MATES, MERGED_VECTORS, ONNX_TOWERS

TEXTS = ["a dog 1", "a dog", "a dog on the beach runs and runs and runs", "fox"]
ADDED = {
    "adapters": ["text_tower.frozen=false", "text_tower.lora={rank=3, alpha=9}", "optim.text_tower_lr=0.02"],
    "pool": ["text_tower.pooling=attention", "optim.projection_lr=0.05"],
}


@pytest.fixture(scope="module", params=ADDED)
def run_dir(
    request: pytest.FixtureRequest, trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("added") / "run"
    settings = ["train.epochs=6", "train.batch_size=10", "optim.warmup=0.0", *ADDED[request.param]]
    train(load_config(trained[0] / "config.toml", settings), folder)
    return folder


@pytest.mark.usefixtures("traced_once")  # what the next test looks at is traced here
def test_the_bundle_has_the_vectors_of_the_run_as_it_was_trained(run_dir: Path, tmp_path: Path) -> None:
    evaluate(run_dir)
    export(run_dir, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").passed
    reference = read_source("run", run_dir).model
    assert open_bundle(tmp_path / "bundle").spec.space_id == space_id(reference)
    with Embedder.load(tmp_path / "bundle") as embedder:
        together = embedder.encode_text(TEXTS)
        alone = np.concatenate([embedder.encode_text([text]) for text in TEXTS])
    assert np.abs(together - reference.text.embed(TEXTS)).max() <= ONNX_TOWERS.bound
    assert np.abs(together - alone).max() <= BATCH_MATES.bound
    unmerged = join_run(load_run(run_dir).config, run_dir)  # its adapters beside the weights, as training has them
    state = unmerged.model.state_dict()
    for name, tensor in read_tensors(run_dir / "best.safetensors").tensors.items():
        state.get(name, torch.empty_like(tensor)).copy_(tensor)
    assert np.abs(dual_model(unmerged).text.embed(TEXTS) - reference.text.embed(TEXTS)).max() <= MERGED_VECTORS.bound
    before = join_run(load_run(run_dir).config, run_dir)
    assert np.abs(dual_model(before).text.embed(TEXTS) - together).max() > 0.01


@pytest.mark.usefixtures("traced_once")
def test_a_graph_is_quantized_as_one_of_a_tower_without(
    run_dir: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """The same products are found, and none of a query with tokens: it is multiplied and summed."""
    roles = []
    for run in (run_dir, trained[0]):
        export_onnx(read_source("run", run).model.text, tmp_path / "text.onnx")
        roles.append([site.role for site in find_sites(fuse_transformer(onnx.load(tmp_path / "text.onnx")))])
    assert {"qkv", "up", "down"} <= set(roles[1])
    assert roles[0] == roles[1]

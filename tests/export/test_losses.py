"""A run with the sigmoid loss and residual heads, from its TOML file to the vectors and the logits that are served."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import dump_config, load_config, load_dumped
from mmalign.run import load_run
from mmalign.training import train
from mmalign.training.metrics import read_metrics
from mmalign_export import export, read_source
from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.verify import verify_bundle
from tests.tolerances import ONNX_TOWERS

HEADS = """
[model.image_head]
kind = "residual"
num_blocks = 2
dropout = 0.1

[model.text_head]
kind = "residual"
standardize_features = true

[loss]
kind = "sigmoid"
temperature = 0.2
bias = -3.0
"""


@pytest.fixture(scope="module")
def run_dir(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sigmoid")
    written = dump_config(load_dumped(trained[0] / "config.toml")).replace("embed_dim = 16", "embed_dim = 8")
    kept = written[: written.index("[model.image_head]")] + HEADS + written[written.index("\n[augment]") :]
    (folder / "config.toml").write_text(kept)
    rates = ["optim.projection_lr=0.01", "optim.logit_scale_lr=0.1", "optim.warmup=0.0"]
    terms = "terms=[{kind='matryoshka', dims=[4]}]"
    settings = ["train.epochs=20", "train.batch_size=10", *rates, terms]
    train(load_config(folder / "config.toml", settings), folder / "run")
    return folder / "run"


def test_scale_and_bias_learn_and_are_saved(run_dir: Path) -> None:
    losses = [float(row["loss"]) for row in read_metrics(run_dir / "metrics.csv")]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    saved = read_tensors(run_dir / "best.safetensors").tensors
    assert abs(saved["logit_scale"].item() - math.log(5)) > 0.05
    assert abs(saved["logit_bias"].item() + 3.0) > 0.01
    assert saved["image_projection.1.change.4.weight"].abs().max() > 0.001


def test_the_bundle_gives_the_runs_vectors_and_reads_them_by_a_sigmoid(run_dir: Path, tmp_path: Path) -> None:
    export(run_dir, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").passed
    saved = read_tensors(run_dir / "best.safetensors").tensors
    pixels = np.random.default_rng(0).integers(0, 256, (31, 24, 3), dtype=np.uint8)
    reference = read_source("run", run_dir).model
    with Embedder.load(tmp_path / "bundle") as embedder:
        similarity = embedder.similarity
        image, text = embedder.encode_image([Image.fromarray(pixels)]), embedder.encode_text(["a dog 1", "a dog"])
    assert open_bundle(tmp_path / "bundle").spec.prefix_dims == (4,)
    assert (similarity.kind, similarity.bias) == ("sigmoid", saved["logit_bias"].item())
    assert similarity.scale == pytest.approx(math.exp(saved["logit_scale"].item()))
    assert np.abs(image - reference.image.embed([pixels])).max() <= ONNX_TOWERS.bound
    assert np.abs(text - reference.text.embed(["a dog 1", "a dog"])).max() <= ONNX_TOWERS.bound


def test_a_run_with_another_loss_is_read_as_that_one(run_dir: Path) -> None:
    run = load_run(run_dir, "last")
    assert run.model.loss.similarity().kind == "sigmoid"
    assert run.model.loss.similarity().bias == read_tensors(run_dir / "last.safetensors").tensors["logit_bias"].item()

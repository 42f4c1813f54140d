"""A run whose sides have several heads, from training to the one vector that is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmalign import evaluate
from mmalign.config import dump_config, load_config, load_dumped
from mmalign.run import load_run
from mmalign.training import train
from mmalign_export import export, read_source
from mmalign_runtime import Embedder
from mmalign_runtime.verify import verify_bundle
from tests.tolerances import ONNX_TOWERS

SETTINGS = (
    *("model.num_members=3", "model.image_head={kind='mlp', standardize_features=true}", "train.epochs=20"),
    *("train.batch_size=10", "optim.projection_lr=0.01", "average={kind='ema', decay=0.8}"),
)


def test_several_heads_are_one_vector_in_the_bundle(trained: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(load_dumped(trained[0] / "config.toml")))
    train(load_config(tmp_path / "config.toml", SETTINGS), tmp_path / "run")
    model = load_run(tmp_path / "run").model
    assert not torch.equal(model.image_projection.get_buffer("directions"), torch.eye(48, 16))
    evaluation = evaluate(tmp_path / "run")
    assert evaluation.sources[0].model.image_to_text.at_10 > 0
    export(tmp_path / "run", tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").passed
    pixels = np.random.default_rng(0).integers(0, 256, (31, 24, 3), dtype=np.uint8)
    reference = read_source("run", tmp_path / "run").model
    with Embedder.load(tmp_path / "bundle") as embedder:
        image, text = embedder.encode_image([Image.fromarray(pixels)]), embedder.encode_text(["a dog 1", "a dog"])
    assert image.shape == (1, 16)
    assert np.abs(image - reference.image.embed([pixels])).max() <= ONNX_TOWERS.bound
    assert np.abs(text - reference.text.embed(["a dog 1", "a dog"])).max() <= ONNX_TOWERS.bound

"""Tiny, seeded, real: a run of random towers and the bundle that the exporter makes of it, once for all tests."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.demo.packages import register_demo_packages
from mmalign.config import parse_config
from mmalign.dual_model import DualModel
from mmalign.model import DualEncoder, ModelConfig
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.training import train
from mmalign_export import export_model, golden, to_bundle
from mmalign_export.golden import GoldenFile, golden_files
from tests.export.tracing import Store, equal_towers_traced_once, operators_read_once
from tests.make_tiny_bundle import tiny_run, tiny_tokenizer
from tests.shared import made_once

SMALL_FILE_BYTES = 50_000

register_demo_packages()  # some parametrizations read them


@pytest.fixture(scope="session", autouse=True)
def quick_traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Store.made_once = functools.partial(made_once, tmp_path_factory)
    with operators_read_once():
        yield


@pytest.fixture
def traced_once() -> Iterator[None]:
    """Trace equal towers once: most of an export's time, and not what the tests that ask for this are about."""
    with equal_towers_traced_once():
        yield


@pytest.fixture(autouse=True)
def few_golden_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the golden images out that take longest; `bundle_dir`, made before this is in place, has all of them."""
    monkeypatch.setattr(to_bundle, "golden_files", lambda pairs: (*small_golden_files(), *golden._own_files(pairs)))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def model(run: Run) -> DualModel:
    return dual_model(run)


@pytest.fixture(scope="session")
def bundle_dir(model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bundle. Copy it before changing anything in it."""
    with equal_towers_traced_once():  # what is traced here is not traced again for tests of other things
        return made_once(tmp_path_factory, "bundle", lambda out: export_model(model, out))


@pytest.fixture(scope="session")
def attention_model(tmp_path_factory: pytest.TempPathFactory) -> DualModel:
    """The tiny model with an attention whose layers differ from where they begin."""
    run = tiny_run(tmp_path_factory.mktemp("run"))
    config = msgspec.convert({"embed_dim": 16, "attention": {"weight": 1.0}}, ModelConfig)
    torch.manual_seed(1)
    encoder = DualEncoder(run.model.image_tower, run.model.text_tower, config).eval()
    assert encoder.attention is not None
    with torch.no_grad():
        for parameter in encoder.attention.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    settings = msgspec.structs.replace(run.config, model=config)
    return dual_model(Run(run.folder, settings, encoder, run.tokenizer))


@pytest.fixture(scope="session")
def attention_bundle(attention_model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, with the small ones of the golden images. Copy it before changing anything in it."""
    files = small_golden_files()
    with equal_towers_traced_once():
        return made_once(
            tmp_path_factory, "attention", lambda out: export_model(attention_model, out, image_files=files)
        )


@functools.cache
def small_golden_files() -> tuple[GoldenFile, ...]:
    """Return the golden images that cost little, drawn once."""
    return tuple(file for file in golden_files(()) if len(file.data) <= SMALL_FILE_BYTES)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run's folder and the folder of the data that it was trained on, to be copied before anything is changed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for number in range(40):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{number}.png")
        lines.append(f"{number}.png,a dog {number}")
    (folder / "data" / "pairs.csv").write_text("\n".join(lines))
    encoder = folder / "encoder"
    encoder.mkdir()
    tiny_tokenizer().save(str(encoder / "tokenizer.json"))
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    (encoder / "config.json").write_text(json.dumps({"model_type": "bert", "intermediate_size": 48, **sizes}))
    tables = {
        "data": {"sources": [{"path": str(folder / "data" / "pairs.csv")}], "split": {"test": 0.3}},
        "image": {"size": 64},
        "text": {"context_length": 12},
        "image_tower": {"name": "timm:test_resnet", "weights": "random", "frozen": True},
        "text_tower": {"name": str(encoder), "weights": "random", "pooling": "mean", "frozen": True},
        "model": {"embed_dim": 16},
        "train": {"epochs": 1, "device": "cpu", "cache_dir": str(folder / "cache")},
    }
    train(parse_config(tables, "the test's configuration"), folder / "run")
    return folder / "run", folder / "data"

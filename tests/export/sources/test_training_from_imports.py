"""Training that begins with an imported model: its vectors before the first step, what is locked, what is exported."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from mmalign import evaluate, train
from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, parse_config
from mmalign.errors import CheckpointError, ConfigError, WeightsError
from mmalign.imported import ImportedTextTower
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.sigmoid import SigmoidConfig
from mmalign.run import create_run, load_run
from mmalign.run.imported_specs import with_imported
from mmalign.run.model import dual_model
from mmalign.signature import TraceExample
from mmalign.towers import traceable
from mmalign_export import export, read_source
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import detect
from mmalign_runtime import Embedder
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.test_broken import BROKEN

Saved = Callable[[str], Path]
MakeConfig = Callable[..., Config]

DIM = 24
FOUND_BY_THE_PROOF = "vectors that hardly differ"
_traced: set[str] = set()
SAME = 1e-6  # one computation, in batches of another size
TEXTS = ["a red square", "two blue circles on the left", ""]


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare the entry point, as an installed mmalign-export does."""
    entry = EntryPoint("mmalign-export", "mmalign_export.sources.training:read_model", "mmalign.sources")
    monkeypatch.setattr("mmalign.imported.entry_points", lambda group: (entry,))


@pytest.fixture(autouse=True)
def seen_to_be_traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace towers of one architecture before one of the trainings, and not before each."""
    trace = traceable._trace

    def trace_once(tower: nn.Module, example: TraceExample, name: str, architecture: str) -> None:
        if str(tower) not in _traced:
            trace(tower, example, name, architecture)
            _traced.add(str(tower))

    monkeypatch.setattr(traceable, "_trace", trace_once)


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Return a function that makes a configuration of pairs of coloured squares, for the towers of a place."""
    rows = []
    for i, (red, green) in enumerate((r, g) for r in range(0, 256, 51) for g in range(0, 256, 64)):
        Image.new("RGB", (40 + i, 48), (red, green, 90)).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", f"red {red} and green {green}", f"c{i}"))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "concept"), *rows])

    def make(place: Path, **tables: dict[str, object]) -> Config:
        name = f"import:{place}"
        given: dict[str, dict[str, object]] = {
            "data": {"sources": [{"path": str(tmp_path / "pairs.csv"), "concept_column": "concept"}]},
            "image_tower": {"name": name},
            "text_tower": {"name": name},
            "model": {"embed_dim": DIM, "image_head": {"kind": "identity"}, "text_head": {"kind": "identity"}},
            "optim": {"image_tower_lr": 1e-3, "text_tower_lr": 1e-3},
            "train": {"epochs": 2, "batch_size": 8, "device": "cpu", "cache_dir": str(tmp_path / "cache")},
        }
        for table, values in tables.items():
            given[table] = given.get(table, {}) | values
        return parse_config(given, "the test's configuration")

    return make


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_before_the_first_step_its_vectors_are_the_sources(
    family: str, saved: Saved, make_config: MakeConfig, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    source = read_source(*detect.detect_source(str(saved(family)))).model
    config = with_imported(make_config(saved(family), model={"embed_dim": source.embed_dim}))
    run = create_run(config, tmp_path / "run")
    run.model.eval()
    model = dual_model(run)
    images = [file.data for file in image_files]
    assert np.abs(model.image.embed(images) - source.image.embed(images)).max() <= SAME
    assert np.abs(model.text.embed(TEXTS) - source.text.embed(TEXTS)).max() <= SAME
    assert model.similarity.kind == source.similarity.kind
    assert model.similarity.scale == pytest.approx(source.similarity.scale, rel=1e-5)
    assert model.similarity.bias == pytest.approx(source.similarity.bias, rel=1e-6)
    assert (model.image.spec, model.text.spec) == (source.image.spec, source.text.spec)


def test_a_locked_image_tower_stays_and_the_text_tower_learns(
    saved: Saved, make_config: MakeConfig, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    config = make_config(saved("clip"), image_tower={"frozen": True})
    source = read_source("transformers", saved("clip")).model
    train(config, tmp_path / "run")
    model = dual_model(load_run(tmp_path / "run"))
    images = [file.data for file in image_files]
    assert np.abs(model.image.embed(images) - source.image.embed(images)).max() <= SAME
    assert np.abs(model.text.embed(TEXTS) - source.text.embed(TEXTS)).max() > 1e-3
    assert any(path.is_file() for path in (tmp_path / "cache").rglob("*")), "the locked tower's features are kept"


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_what_was_tuned_is_resumed_evaluated_exported_and_verified(
    family: str, saved: Saved, make_config: MakeConfig, tmp_path: Path
) -> None:
    place = shutil.copytree(saved(family), tmp_path / "place")
    dim = read_source("transformers", place).model.embed_dim
    config = make_config(place, model={"embed_dim": dim})
    result = train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True) == result
    evaluate(tmp_path / "run")
    spec = export(tmp_path / "run", tmp_path / "bundle")
    assert spec.embed_dim == dim
    assert verify_bundle(tmp_path / "bundle").passed
    with Embedder.load(tmp_path / "bundle") as embedder:
        expected = dual_model(load_run(tmp_path / "run")).text.embed(TEXTS)
        assert np.abs(embedder.encode_text(TEXTS) - expected).max() <= 1e-5


def test_adapters_learn_beside_an_imported_text_tower_and_are_merged(
    saved: Saved, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(saved("clip"), image_tower={"frozen": True}, text_tower={"lora": {"rank": 2}})
    result = train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True) == result
    learned = read_tensors(tmp_path / "run/last.safetensors").tensors
    of_tower = [name for name in learned if name.startswith("text_tower.")]
    assert of_tower
    assert all("lora_" in name for name in of_tower)
    source = read_source("transformers", saved("clip")).model.text
    tuned = dual_model(load_run(tmp_path / "run", "last")).text
    assert tuned.module.backbone.state_dict().keys() == ImportedTextTower(source).state_dict().keys()
    assert np.abs(tuned.embed(TEXTS) - source.embed(TEXTS)).max() > 1e-3


def test_heads_and_another_text_tower_go_on_top_of_an_imported_image_tower(
    saved: Saved, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(
        saved("clip"),
        text_tower={"name": f"import:{saved('siglip')}", "frozen": True},
        model={"embed_dim": 16, "image_head": {"kind": "linear"}, "text_head": {"kind": "linear"}},
    )
    tuned = with_imported(config)
    assert tuned.loss == InfoNCEConfig(), "two models have no scale in common"
    train(config, tmp_path / "run")
    model = dual_model(load_run(tmp_path / "run"))
    assert model.text.input_names == ("input_ids",)
    assert model.embed_dim == 16


def test_scale_and_bias_go_on_where_the_source_stopped(saved: Saved, make_config: MakeConfig) -> None:
    siglip = with_imported(make_config(saved("siglip"))).loss
    similarity = read_source("transformers", saved("siglip")).model.similarity
    assert isinstance(siglip, SigmoidConfig)
    assert (1 / siglip.temperature, siglip.bias) == (pytest.approx(similarity.scale), similarity.bias)
    chosen = make_config(saved("siglip"), loss={"kind": "infonce", "temperature": 0.5})
    assert with_imported(chosen).loss == InfoNCEConfig(temperature=0.5)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"image": {"size": 64}}, r"image\.size is 64, and the imported image tower was made with .*Leave it out"),
        ({"text": {"context_length": 9}}, r"text\.context_length is 9, and the imported text tower was made with 24"),
        ({"image_tower": {"weights": "random"}}, r"which has weights\. Leave out image_tower\.weights"),
        ({"text_tower": {"pooling": "mean"}}, r"which decides text_tower\.pooling\. Leave it out"),
        ({"model": {"embed_dim": 7}}, r"keeps the tower's 24 features, and model\.embed_dim is 7"),
    ],
)
def test_what_contradicts_the_source_is_named(
    saved: Saved, make_config: MakeConfig, tmp_path: Path, tables: dict[str, dict[str, object]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(make_config(saved("clip"), **tables), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_limits_and_draft_decoding_are_the_users(saved: Saved, make_config: MakeConfig) -> None:
    config = make_config(saved("clip"), image={"jpeg_oversampling": 3, "limits": {"max_pixels": 10_000}})
    image = with_imported(config).image
    assert (image.jpeg_oversampling, image.limits.max_pixels) == (3, 10_000)


def test_a_place_that_is_gone_and_an_exporter_that_is_not_installed_are_named(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"'import:.*nowhere' cannot be read: .*neither a file nor a folder"):
        train(make_config(tmp_path / "nowhere"), tmp_path / "run")
    monkeypatch.setattr("mmalign.imported.entry_points", lambda group: ())
    with pytest.raises(ConfigError, match=r"is not installed\. Run `pip install mmalign-export`"):
        train(make_config(tmp_path / "nowhere"), tmp_path / "run")


@pytest.mark.parametrize(
    "name", [name for name in BROKEN if name != "vectors that hardly differ"]
)  # found by the proof
def test_training_from_a_broken_source_is_refused_as_its_import_is(
    name: str, saved: Saved, make_config: MakeConfig, tmp_path: Path
) -> None:
    place = shutil.copytree(saved("clip"), tmp_path / "source" / "model")
    change, match = BROKEN[name]
    change(place)
    with pytest.raises(WeightsError, match=rf"'import:.*model' cannot be read: .*({match})") as raised:
        train(make_config(place), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert not (place.parent / "ran").exists()


def test_weights_of_another_model_are_not_read_into_a_run(
    saved: Saved, make_config: MakeConfig, tmp_path: Path
) -> None:
    place = shutil.copytree(saved("clip"), tmp_path / "place")
    train(make_config(place), tmp_path / "run")
    shutil.rmtree(place)
    shutil.copytree(saved("siglip"), place)
    with pytest.raises((CheckpointError, ConfigError), match=r"belongs to another model|keeps the tower's"):
        load_run(tmp_path / "run")


def test_a_run_of_which_nothing_would_learn_is_refused(saved: Saved, make_config: MakeConfig, tmp_path: Path) -> None:
    frozen = {"image_tower": {"frozen": True}, "text_tower": {"frozen": True}}
    with pytest.raises(ConfigError, match="nothing would learn: both towers are frozen, both heads are of kind 'ident"):
        train(
            make_config(saved("clip"), **frozen, loss={"temperature": 0.1, "learn_temperature": False}), tmp_path / "r"
        )
    assert not (tmp_path / "r").exists()

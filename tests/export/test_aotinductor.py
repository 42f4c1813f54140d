"""The compiled towers: held to the parity of the ONNX files, and AOTInductor as an engine. They need a C++ compiler."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from mmalign.dual_model import DualModel
from mmalign.model import DualEncoder
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.towers.text import create_text_tower
from mmalign.towers.vision import ImageTower
from mmalign_export import export_model
from mmalign_export.aotinductor import AotInductorEngine, AotInductorSession
from mmalign_export.bundle import TOWER_FILES
from mmalign_export.errors import ParityError
from mmalign_export.parity import check_parity, torch_artifact
from mmalign_export.to_compiled import load_aoti
from mmalign_runtime import BundleError, Embedder, ProviderError, open_bundle, verify_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Model, SessionOptions
from mmalign_runtime.errors import EmbedderStateError
from mmalign_runtime.spec import AOTINDUCTOR, TORCH_COMPILE
from tests.export.conftest import small_golden_files

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which inductor compiles with")

TOWERS = ("image", "text")
ROOT = Path(__file__).parents[2]
TEXTS = ["a dog", "", "a much longer text about a dog"]
# Float32 in another order of sums, on unit vectors.
ENGINES_APART = 1e-5


@pytest.fixture(scope="module")
def small_model(run: Run) -> DualModel:
    """Towers of few kernels, as the compiler takes seconds for each: a layer of BERT, two convolutions and a norm."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.AdaptiveAvgPool2d(1))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    bert = transformers.BertConfig(vocab_size=run.tokenizer.get_vocab_size(), **sizes)
    towers = ImageTower(nn.Sequential(*layers, nn.Flatten()), 12), create_text_tower(bert, "mean")
    encoder = DualEncoder(*towers, run.config.model).eval()
    return dual_model(Run(run.folder, run.config, encoder, run.tokenizer))


@pytest.fixture(scope="module")
def packaged(small_model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packaged") / "bundle"
    export_model(small_model, out, formats=("onnx", "aoti", "compile"), image_files=small_golden_files())
    return out


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register what pyproject.toml says, whatever metadata this environment was installed with."""
    entries = tomllib.loads((ROOT / "export/pyproject.toml").read_text())["project"]["entry-points"]["mmalign.engines"]
    found = [EntryPoint(name, value, "mmalign.engines") for name, value in entries.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(bundle: Path) -> Embedder:
    return Embedder.load(bundle, engine="aotinductor", num_threads=1)


def test_the_entry_point_of_the_project_is_found() -> None:
    assert isinstance(find_engine("aotinductor"), AotInductorEngine)


def test_vectors_are_those_of_onnxruntime(packaged: Path) -> None:
    images = [np.full((40, 60, 3), level, np.uint8) for level in (0, 90, 255)]
    with load(packaged) as found, Embedder.load(packaged, provider="cpu", num_threads=1) as expected:
        for mine, its in (
            (found.encode_text(TEXTS), expected.encode_text(TEXTS)),
            (found.encode_image(images), expected.encode_image(images)),
        ):
            np.testing.assert_allclose(mine, its, atol=ENGINES_APART, rtol=0)
        assert found.space_id == expected.space_id
        assert found.variant_id != expected.variant_id


@pytest.mark.parametrize("num_texts", [1, 3])
def test_a_batch_of_texts_of_one_token_is_taken(packaged: Path, num_texts: int) -> None:
    feeds = {name: np.ones((num_texts, 1), np.int64) for name in ("input_ids", "attention_mask")}  # (B, 1)
    with load(packaged) as found, Embedder.load(packaged, provider="cpu", num_threads=1) as expected:
        mine, its = (each.text.session.run(feeds) for each in (found, expected))
    assert mine.shape == (num_texts, found.embed_dim)
    np.testing.assert_allclose(mine, its, atol=ENGINES_APART, rtol=0)


def test_verify_covers_it(packaged: Path) -> None:
    report = verify_bundle(packaged, engine="aotinductor", num_threads=1)
    assert report.passed
    spec = open_bundle(packaged).spec
    assert report.bounds == {tower: spec.artifact(tower, engine=AOTINDUCTOR).parity for tower in ("image", "text")}
    assert {"text batch", "image batch", "concurrency"} == {check.name for check in report.checks}
    assert report.runtime.engine == "aotinductor"


def test_an_archives_package_is_run_too(packaged: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.mmalign"
    pack_bundle(packaged, archive)
    with load(archive) as packed, load(packaged) as folder:
        np.testing.assert_array_equal(packed.encode_text(TEXTS), folder.encode_text(TEXTS))


def test_threads_follow_the_pool(packaged: Path) -> None:
    with Embedder.load(packaged, engine="aotinductor", num_threads=2, towers=("text",)) as embedder:
        assert torch.get_num_threads() == 2
        assert embedder.info().towers[0].providers[0].options == {"torch.get_num_threads": "2"}


def test_runs_from_many_threads_do_not_mix(packaged: Path) -> None:
    with load(packaged) as embedder:
        expected = [embedder.encode_text([text] * 3) for text in TEXTS]
        found: dict[int, bool] = {}

        def call(n: int) -> None:
            mine = [embedder.encode_text([TEXTS[n % 3]] * 3) for _ in range(5)]
            found[n] = all(np.allclose(vectors, expected[n % 3], atol=ENGINES_APART) for vectors in mine)

        callers = [threading.Thread(target=call, args=(n,)) for n in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert found == dict.fromkeys(range(6), True)


def test_a_bundle_without_packages_says_how_to_get_them() -> None:
    with pytest.raises(BundleError, match=r"no AOTInductor package.*--formats onnx,aoti"):
        load(ROOT / "tests/runtime/fixtures/tiny_bundle")


@pytest.mark.parametrize(
    ("metadata", "seen"),
    [
        ({"AOTI_CPU_ISA": "QUANTUM"}, r"QUANTUM \(here: "),
        ({"AOTI_MACHINE": "abacus"}, r"abacus \(here: "),
        ({"AOTI_DEVICE_KEY": "cuda"}, r"cuda \(here: cpu\)"),
    ],
)
def test_a_package_for_another_machine_is_refused(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str], seen: str
) -> None:
    class Loader:
        @staticmethod
        def load_metadata_from_package(path: str, name: str) -> dict[str, str]:
            return metadata

    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", Loader)
    with pytest.raises(BundleError, match=f"built for another kind of machine, with {seen}"):
        load(packaged)


def test_what_is_no_package_is_a_bundle_error() -> None:
    options = SessionOptions("cpu", thread_pool(1), engine="aotinductor")
    with pytest.raises(BundleError, match="is not an AOTInductor package"):
        AotInductorSession(Model(b"no package", "broken.pt2", ()), options)


def test_other_precisions_and_providers_are_refused(packaged: Path) -> None:
    with pytest.raises(ProviderError, match="only fp32"):
        Embedder.load(packaged, engine="aotinductor", precision="bf16")
    with pytest.raises(ProviderError, match="runs on the CPU"):
        Embedder.load(packaged, engine="aotinductor", provider="cuda")


def _use_in_fork(embedder: Embedder, answers: multiprocessing.Queue[str]) -> None:
    for use in (lambda: embedder.encode_text(["a dog"]), lambda: load(embedder.bundle.path)):
        try:
            use()
        except EmbedderStateError as error:
            answers.put(str(error))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_is_told_and_ends(packaged: Path) -> None:
    with load(packaged) as embedder:
        embedder.encode_text(["a dog"])
        context = multiprocessing.get_context("fork")
        answers: multiprocessing.Queue[str] = context.Queue()  # type: ignore[assignment]
        child = context.Process(target=_use_in_fork, args=(embedder, answers))
        child.start()
        assert "Load the Embedder after the fork" in answers.get(timeout=60)
        assert "multiprocessing's 'spawn'" in answers.get(timeout=60)
        child.join(timeout=30)
    assert child.exitcode == 0


def test_all_three_formats_are_held_to_parity(packaged: Path) -> None:
    spec = open_bundle(packaged).spec
    kinds = ("onnx-fp32", "aotinductor-fp32", "torch.compile-fp32")
    assert [(each.kind, each.tower) for each in spec.artifacts] == [(kind, tower) for kind in kinds for tower in TOWERS]
    assert all(each.parity for each in spec.artifacts)
    assert {tower: spec.artifact(tower, engine=AOTINDUCTOR).file for tower in TOWERS} == TOWER_FILES[AOTINDUCTOR]
    assert {each.file for each in spec.artifacts if each.engine == TORCH_COMPILE} == {""}


def test_canary_packages_of_another_model_fail(packaged: Path, small_model: DualModel) -> None:
    bundle = open_bundle(packaged)
    golden = load_golden(bundle)
    image = load_aoti(packaged / "aoti/vision_model.pt2")
    text = small_model.text.module

    def eager_text(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return cast("torch.Tensor", text(*inputs))

    honest = torch_artifact(AOTINDUCTOR, small_model, {"image": image, "text": eager_text})
    check_parity(honest, golden, packaged)
    flipped = {"image": lambda pixels: image(pixels.flip(1)), "text": eager_text}
    moved = torch_artifact(AOTINDUCTOR, small_model, flipped)
    with pytest.raises(ParityError, match="image case"):
        check_parity(moved, golden, packaged)


def test_packages_have_the_modules_signature(packaged: Path, small_model: DualModel) -> None:
    tower = small_model.image
    (pixel_values,) = tower.example().inputs
    package = load_aoti(packaged / "aoti/vision_model.pt2")
    assert package(pixel_values[:1]).shape == tower.module(pixel_values[:1]).shape

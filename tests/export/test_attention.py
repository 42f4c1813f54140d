"""The second stage in a bundle: its graphs held to PyTorch, and golden cases that fail when a graph is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mmalign.dual_model import DualModel
from mmalign_export import export_model
from mmalign_export.attention import check_attention
from mmalign_export.errors import ParityError
from mmalign_runtime import BundleError, Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.errors import BundleFormatError, InputError
from mmalign_runtime.spec import REGIONS, SCORES, SPEC_NAME, decode_spec, encode_spec
from mmalign_runtime.verify import verify_bundle
from mmalign_runtime.verify.attention import run_attention
from mmalign_runtime.verify.golden_cases import run_golden
from tests.export.conftest import small_golden_files


@pytest.fixture
def bundle(attention_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(attention_bundle, tmp_path / "bundle")


@pytest.mark.usefixtures("traced_once")
def test_its_graphs_are_artifacts_with_parity_and_leave_space_and_variant_alone(
    attention_model: DualModel, attention_bundle: Path, tmp_path: Path
) -> None:
    spec = open_bundle(attention_bundle).spec
    assert spec.attention is not None
    assert (spec.attention.rows, spec.attention.columns) == (2, 2)
    for name in (REGIONS, SCORES):
        parity = spec.artifact(name).parity
        assert parity is not None
        assert parity.min_cosine > 0.999999
    files = small_golden_files()
    without = export_model(
        msgspec.structs.replace(attention_model, attention=None), tmp_path / "plain", image_files=files
    )
    assert without.space_id == spec.space_id
    assert without.variant_id("fp32") == spec.variant_id("fp32")
    assert without.precisions() == spec.precisions()
    written = (tmp_path / "plain" / SPEC_NAME).read_text()
    assert "attention" not in written.replace("attention_mask", "")
    assert b'"attention"' not in (tmp_path / "plain/golden/cases.json").read_bytes()


def test_verify_proves_it(attention_bundle: Path) -> None:
    report = verify_bundle(attention_bundle, provider="cpu")
    assert report.passed
    cases = [case for case in report.cases if case.kind == "attention"]
    assert len(cases) == len([case for case in report.cases if case.kind == "image"])
    assert [check.name for check in report.checks if "attention" in check.name] == ["attention batch"]


def test_its_graphs_are_held_to_pytorch_where_a_tower_is_held_to_vectors_of_its_own(attention_bundle: Path) -> None:
    """As an int8 tower is, whose golden cases are its own: here with vectors of zeros."""
    with Embedder.load(attention_bundle, provider="cpu") as embedder:
        bounds = {name: embedder.bundle.spec.artifact(name).parity for name in embedder.towers}
        images = run_golden(embedder, {name: each for name, each in bounds.items() if each is not None}).images
        zeros = [
            msgspec.structs.replace(each, case=msgspec.structs.replace(each.case, embedding=(0.0,) * 16))
            for each in images
        ]
        assert all(case.passed for case in run_attention(embedder, zeros, 1e-6).cases)


@pytest.mark.parametrize(("name", "stage"), [("region_model", "regions"), ("score_model", "scores")])
def test_a_graph_with_other_weights_is_found_and_named(bundle: Path, name: str, stage: str) -> None:
    file = f"onnx/{name}.onnx"
    graph = onnx.load(bundle / file)
    floats = [each for each in graph.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    largest = max((each for each in floats if "backbone" not in each.name), key=lambda each: len(each.raw_data))
    weights = numpy_helper.to_array(largest)  # of the tokens, or of the query
    noise = np.random.default_rng(0).normal(0, weights.std(), weights.shape)
    largest.CopyFrom(numpy_helper.from_array((weights + noise).astype(np.float32), largest.name))
    onnx.save(graph, bundle / file)
    spec = decode_spec((bundle / SPEC_NAME).read_bytes())
    files = spec.files | {file: sha256_of_file(bundle / file)}
    (bundle / SPEC_NAME).write_bytes(encode_spec(msgspec.structs.replace(spec, files=files)))
    report = verify_bundle(bundle, provider="cpu")
    assert not report.passed
    assert {case.stage for case in report.cases if not case.passed} == {stage}


def test_export_refuses_graphs_that_differ(attention_model: DualModel, attention_bundle: Path) -> None:
    attention = attention_model.attention
    assert attention is not None
    scores = msgspec.structs.replace(attention.scores, module=_Moved(attention.scores.module))
    moved = msgspec.structs.replace(attention, scores=scores)
    with Embedder.load(attention_bundle, provider="cpu") as embedder:
        golden = load_golden(embedder.bundle)
        assert set(check_attention(attention_model, attention, embedder, golden)) == {REGIONS, SCORES}
        with pytest.raises(ParityError, match="the graph of scores differs from eager PyTorch"):
            check_attention(attention_model, moved, embedder, golden)


class _Moved(torch.nn.Module):
    """The scores, 0.001 higher."""

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, *inputs: Tensor) -> Tensor:
        moved: Tensor = self.scores(*inputs) + 0.001
        return moved


def test_the_first_token_is_the_vector_and_scores_are_pytorchs(
    attention_model: DualModel, attention_bundle: Path
) -> None:
    attention = attention_model.attention
    assert attention is not None
    with Embedder.load(attention_bundle, provider="cpu") as embedder:
        golden = load_golden(embedder.bundle)
        paths = [attention_bundle / case.file for case in golden.images[:5]]
        tokens = embedder.attention.encode_regions(paths)
        texts = embedder.encode_text(["a dog", "the quick brown fox"])
        seen = embedder.attention.attend(texts, tokens)
        assert np.abs(tokens[:, 0] - embedder.encode_image(paths)).max() < 1e-5
        assert (seen.scores.shape, seen.weights.shape) == ((2, 5), (2, 5, 2, 2))
        expected = attention.scores.run(texts, tokens)
        assert np.abs(seen.scores - expected[..., 0]).max() < 1e-5
        assert np.abs(seen.weights.reshape(2, 5, 4) - expected[..., 1:]).max() < 1e-5
        assert embedder.attention.attend(texts, tokens[:0]).scores.shape == (2, 0)
        assert embedder.attention.encode_regions([]).shape == (0, 5, 16)
        with pytest.raises(InputError, match=r"expected \(T, 16\) and \(I, 5, 16\)"):
            embedder.attention.attend(texts, tokens[:, 1:])


def test_a_bundle_without_one_says_so() -> None:
    with (
        Embedder.load(Path(__file__).parent.parent / "runtime/fixtures/tiny_bundle", provider="cpu") as embedder,
        pytest.raises(BundleError, match="has no attention, so nothing can be reranked"),
    ):
        _ = embedder.attention


def test_a_spec_with_an_attention_and_without_its_graphs_is_refused(bundle: Path) -> None:
    spec = decode_spec((bundle / SPEC_NAME).read_bytes())
    kept = tuple(each for each in spec.artifacts if each.tower != SCORES)
    (bundle / SPEC_NAME).write_bytes(encode_spec(msgspec.structs.replace(spec, artifacts=kept)))
    with pytest.raises(BundleFormatError, match="no ONNX artifact of 'scores'"):
        open_bundle(bundle)

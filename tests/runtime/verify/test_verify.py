from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.providers import ProviderChoice, ResolvedProvider, import_onnxruntime, ort_name
from mmalign_runtime.engine.session import NodeGroup
from mmalign_runtime.errors import BundleError, BundleFormatError, BundleIntegrityError, ProviderError
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.spec import SPEC_NAME, BundleSpec
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.text_encoder import TextEncoder
from mmalign_runtime.tokenizer import TokenBatch
from mmalign_runtime.verify import CheckResult, VerifyReport, verify_bundle, verify_embedder
from mmalign_runtime.verify.float32 import check_float32, check_placement

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]


@pytest.fixture(scope="module")
def report(embedder: Embedder) -> VerifyReport:
    return verify_embedder(embedder)


def check(report: VerifyReport, name: str) -> CheckResult:
    (found,) = [check for check in report.checks if check.name == name]
    return found


def test_every_golden_case_and_every_check_is_run(report: VerifyReport, embedder: Embedder) -> None:
    golden = load_golden(embedder.bundle)
    assert report.passed
    assert len(report.cases) == len(golden.images) + len(golden.texts)
    names = {check.name for check in report.checks}
    assert names == {"image batch", "text batch", "concurrency", "placement", "float32"}


def test_a_report_without_cases_or_without_checks_has_not_passed(report: VerifyReport) -> None:
    assert not msgspec.structs.replace(report, cases=()).passed
    assert not msgspec.structs.replace(report, checks=()).passed


def test_thread_counts_do_not_change_the_verdict(tiny_bundle: Path) -> None:
    assert verify_bundle(tiny_bundle, provider="cpu", num_threads=1).passed


def test_a_golden_image_that_was_swapped_is_an_integrity_error(tiny_bundle: Path) -> None:
    shutil.copy(tiny_bundle / "golden/grey.jpg", tiny_bundle / "golden/WebP.webp")
    with pytest.raises(BundleIntegrityError, match=r"WebP\.webp was changed"):
        verify_bundle(tiny_bundle)


def test_a_folder_that_is_no_bundle_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"has no {SPEC_NAME}"):
        verify_bundle(tmp_path)


def test_a_precision_without_recorded_parity_is_refused(tiny_bundle: Path, edit_spec: SpecEdit) -> None:
    with pytest.raises(BundleError, match="has no int8 file"):
        verify_bundle(tiny_bundle, precision="int8")
    edit_spec(
        lambda spec: msgspec.structs.replace(
            spec, artifacts=tuple(msgspec.structs.replace(each, parity=None) for each in spec.artifacts)
        )
    )
    with pytest.raises(BundleFormatError, match="records no parity of onnx-fp32 for the image tower"):
        verify_bundle(tiny_bundle)


def test_a_vector_that_depends_on_its_neighbours_is_found(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnnxSession.run

    def leak(session: OnnxSession, feeds: dict[str, np.ndarray]) -> Vectors:
        found = whole(session, feeds)
        return found + np.float32(1e-5) * (len(found) > 1)

    monkeypatch.setattr(OnnxSession, "run", leak)
    report = verify_embedder(embedder)
    assert not report.passed
    assert not check(report, "image batch").passed
    assert not check(report, "text batch").passed


def test_a_vector_that_depends_on_other_threads_is_found(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    whole = TextEncoder.tower

    def race(encoder: TextEncoder, tokens: TokenBatch) -> Vectors:
        inside.append(1)
        found = whole(encoder, tokens)
        time.sleep(0.01)  # long enough for another thread to come in
        moved = np.float32(1e-5) * (len(inside) > 1)
        inside.pop()
        return found + moved

    monkeypatch.setattr(TextEncoder, "tower", race)
    report = verify_embedder(embedder)
    assert check(report, "text batch").passed
    assert not check(report, "concurrency").passed


def test_a_provider_that_rounds_to_tf32_is_found(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnnxSession.run

    def tf32(session: OnnxSession, feeds: dict[str, np.ndarray]) -> Vectors:
        short = {name: (value.view(np.uint32) & 0xFFFFE000).view(np.float32) for name, value in feeds.items()}
        return whole(session, short)

    monkeypatch.setattr(OnnxSession, "run", tf32)
    found = check_float32(embedder.options)
    assert not found.passed
    assert found.max_abs_difference == 2**-12


def test_heavy_nodes_on_another_provider_are_found(embedder: Embedder) -> None:
    def info(operator: str) -> RuntimeInfo:
        nodes = (NodeGroup("CUDAExecutionProvider", "Conv", 50), NodeGroup("CPUExecutionProvider", operator, 2))
        tower = TowerInfo("image", "model.onnx", (ProviderChoice("CUDAExecutionProvider", {}),), nodes)
        return msgspec.structs.replace(embedder.info(), provider="cuda", towers=(tower,))

    assert check_placement(info("Shape")).passed
    found = check_placement(info("MatMul"))
    assert not found.passed
    assert found.detail == "50 of 52 nodes on CUDAExecutionProvider; on another: image: 2 MatMul"


def test_a_copy_is_equal_to_its_original(tiny_bundle: Path, embedder: Embedder) -> None:
    report = verify_bundle(tiny_bundle, provider="cpu", against=embedder.bundle.path)
    assert report.passed
    assert report.against is not None
    assert report.against.is_same_space


def test_another_space_is_not_equal_even_where_the_vectors_are(
    tiny_bundle: Path, embedder: Embedder, edit_spec: SpecEdit
) -> None:
    edit_spec(lambda spec: msgspec.structs.replace(spec, space_id="mma-another"))
    report = verify_bundle(embedder.bundle.path, provider="cpu", against=tiny_bundle)
    assert report.against is not None
    assert not report.passed
    assert (report.against.is_same_space, report.against.max_abs_difference) == (False, 0.0)


def test_a_bundle_that_embeds_otherwise_names_the_farthest_item(
    tiny_bundle: Path, embedder: Embedder, edit_spec: SpecEdit
) -> None:
    def black(spec: BundleSpec) -> BundleSpec:
        image = spec.towers["image"]
        image = msgspec.structs.replace(image, spec=msgspec.structs.replace(image.spec, background=(0, 0, 0)))
        return msgspec.structs.replace(spec, towers={**spec.towers, "image": image})

    edit_spec(black)
    report = verify_bundle(embedder.bundle.path, provider="cpu", against=tiny_bundle)
    assert report.against is not None
    assert not report.against.passed
    assert report.against.farthest in {"RGBA", "LA", "WebP with alpha", "palette with transparency"}


def test_cuda_that_is_not_there_is_an_error_not_the_cpu(tiny_bundle: Path) -> None:
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime has CUDA: asking for it is no error")
    with pytest.raises(ProviderError, match=r"mmalign-runtime\[gpu\]"):
        verify_bundle(tiny_bundle, provider="cuda")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_other_providers_give_the_reference_vectors(tiny_bundle: Path, provider: ResolvedProvider) -> None:
    if ort_name(provider) not in import_onnxruntime().get_available_providers():
        pytest.skip(f"needs an onnxruntime with {ort_name(provider)}, and the hardware it is for")
    report = verify_bundle(tiny_bundle, provider=provider)
    assert report.passed
    assert report.runtime.provider == provider


def test_bfloat16_on_a_real_processor_is_found(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ort_name("openvino")
    if name not in import_onnxruntime().get_available_providers():
        pytest.skip(f"needs an onnxruntime with {name}, and a processor with bfloat16")
    config = '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'
    choices = (ProviderChoice(name, {"device_type": "CPU", "load_config": config}),)
    with Embedder.load(tiny_bundle, provider="openvino", lazy=True) as embedder:
        monkeypatch.setattr("mmalign_runtime.engine.onnxruntime.provider_choices", lambda *a, **k: choices)
        assert not check_float32(embedder.options).passed


def test_every_file_is_hashed_whatever_is_remembered(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny_bundle / "README.md").write_text("another card")
    remembered = open_bundle(tiny_bundle, check_hashes=False).spec.files["README.md"]
    monkeypatch.setattr("mmalign_runtime.bundle.hashes.HashMemory.sha256", lambda *a: remembered)
    with pytest.raises(BundleIntegrityError, match=r"README\.md was changed"):
        verify_bundle(tiny_bundle, provider="cpu")

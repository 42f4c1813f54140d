from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import BundleError, BundleFormatError, BundleIntegrityError, ProviderError
from mmalign_runtime.golden import load_golden
from mmalign_runtime.providers import import_onnxruntime
from mmalign_runtime.spec import SPEC_NAME
from mmalign_runtime.verify import VerifyReport, verify_bundle


def test_every_golden_case_is_run_alone_and_all_together(tiny_bundle: Path) -> None:
    report = verify_bundle(tiny_bundle, provider="cpu")
    golden = load_golden(open_bundle(tiny_bundle))
    assert report.passed
    assert len(report.cases) == len(golden.images) + len(golden.texts) + 2


def test_a_report_without_cases_has_not_passed(tiny_bundle: Path) -> None:
    report = verify_bundle(tiny_bundle, provider="cpu")
    assert not VerifyReport(runtime=report.runtime, bounds=report.bounds, cases=()).passed


def test_thread_counts_do_not_change_the_verdict(tiny_bundle: Path) -> None:
    assert verify_bundle(tiny_bundle, provider="cpu", num_threads=1).passed


def test_a_golden_image_that_was_swapped_is_an_integrity_error(tiny_bundle: Path) -> None:
    shutil.copy(tiny_bundle / "golden/grey.jpg", tiny_bundle / "golden/WebP.webp")
    with pytest.raises(BundleIntegrityError, match=r"WebP\.webp was changed"):
        verify_bundle(tiny_bundle)


def test_a_folder_that_is_no_bundle_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"has no {SPEC_NAME}"):
        verify_bundle(tmp_path)


def test_a_precision_without_recorded_parity_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises((BundleError, BundleFormatError), match="int8"):
        verify_bundle(tiny_bundle, precision="int8")


def test_cuda_that_is_not_there_is_an_error_not_the_cpu(tiny_bundle: Path) -> None:
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime has CUDA: asking for it is no error")
    with pytest.raises(ProviderError, match=r"mmalign-runtime\[gpu\]"):
        verify_bundle(tiny_bundle, provider="cuda")


def test_cuda_gives_the_reference_vectors(tiny_bundle: Path) -> None:
    if "CUDAExecutionProvider" not in import_onnxruntime().get_available_providers():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    report = verify_bundle(tiny_bundle, provider="cuda")
    assert report.passed
    assert report.runtime.provider == "cuda"

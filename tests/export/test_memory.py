"""A verb that asks for more memory than there is ends with one named error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign import evaluate
from mmalign.errors import ModelError
from mmalign.evaluation.of_bundle import evaluate_bundle
from mmalign_export import export, import_model, quantize
from mmalign_export.errors import ExportError, QuantizationError
from mmalign_export.quantization.budget import Budget


def _ask_for_40_tb(*_: object, **__: object) -> None:
    torch.empty(10**13)


@pytest.mark.parametrize(
    ("inside", "verb", "kind", "what"),
    [
        ("mmalign.evaluation.of_run.load_run", evaluate, ModelError, "the evaluation"),
        ("mmalign.evaluation.of_bundle.read_pairs", evaluate_bundle, ModelError, "the evaluation"),
        ("mmalign_export.to_bundle.read_source", export, ExportError, "the export"),
        ("mmalign_export.importing.detect_source", import_model, ExportError, "the import"),
        ("mmalign_export.quantization.run.check_free", quantize, QuantizationError, "quantization"),
    ],
)
def test_more_memory_than_there_is(
    inside: str,
    verb: Callable[..., object],
    kind: type[Exception],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inside, _ask_for_40_tb)
    given = {"out": tmp_path / "out"} if verb in (export, import_model, quantize) else {}
    given |= {"budget": Budget({1: 1.0})} if verb is quantize else {}
    given |= {"pairs": tmp_path} if verb is evaluate_bundle else {}
    with pytest.raises(kind, match=f"^{what} needs more memory than there is: can't allocate memory"):
        verb(tmp_path, **given)

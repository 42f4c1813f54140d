from __future__ import annotations

import logging

import pytest

from mmalign_export.quantization.dynamic import quantize_dynamically
from mmalign_export.quantization.trial import largest_move, open_model
from tests.export.quantization.conftest import INPUT_NAMES, TinyBert
from tests.export.quantization.tiny_models import OPTIONS
from tests.tolerances import BATCH_MATES


def test_a_scale_over_the_batch_moves_vectors_with_their_mates(bert: TinyBert) -> None:
    # Why it is refused; and that the test of the others can fail.
    session = open_model(quantize_dynamically(bert.exported).SerializeToString(), INPUT_NAMES, OPTIONS)
    assert largest_move(session, bert.feeds) > 100 * BATCH_MATES.bound


def test_what_onnxruntime_advises_is_not_shown(bert: TinyBert, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    quantize_dynamically(bert.exported)
    assert not caplog.records
    assert not bert.exported.metadata_props  # nor is the model changed for it

"""Whether a tower can be traced, as export traces it: found out before training, and not after it.

Tracing takes seconds, so that it is left out for the architectures whose export the tests cover.
Shapes: B batch, L text tokens, S image side.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.export import Dim

from mmalign._compat import TRACING_ERRORS
from mmalign.errors import ConfigError
from mmalign.text import TextTower, first_line
from mmalign.vision import ImageTower
from mmalign_runtime.spec import ImageSpec, TextSpec

# transformers' model types, and the modules of torchvision and timm, that tests/export/test_architectures.py exports.
TRACED_TEXT = frozenset(
    {
        *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "nomic_bert"),
        *("roberta", "xlm-roberta", "t5", "clip_text_model", "gpt2", "llama", "qwen2"),
    }
)
TRACED_IMAGE = frozenset({"convnext", "efficientnet", "resnet", "vision_transformer"})

# Traced with sizes that are no special case: not 1, and not each other.
_TRACED_BATCH = 3
_TRACED_TOKENS = 11


class TraceExample(msgspec.Struct, frozen=True):
    """Example inputs of a tower, and which of their sizes may change."""

    inputs: tuple[Tensor, ...]
    dynamic_shapes: tuple[dict[int, Dim], ...]


def image_example(spec: ImageSpec) -> TraceExample:
    """Return pixel_values (B, 3, H, W), B dynamic."""
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(_TRACED_BATCH, 3, *spec.shape, generator=generator)
    return TraceExample((pixel_values,), ({0: Dim("batch")},))


def text_example(spec: TextSpec) -> TraceExample:
    """Return input_ids and attention_mask (B, L), both sizes dynamic."""
    longest = max(spec.context_length, _TRACED_BATCH)  # a range has two lengths at least
    num_tokens = min(_TRACED_TOKENS, longest)
    ids = torch.ones(_TRACED_BATCH, num_tokens, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[0, num_tokens // 2 :] = 0  # some padding, so that no trace takes the mask for all ones
    batch, length = Dim("batch"), Dim("length", min=2, max=longest)
    # The mask follows the ids: naming its axes a second time only makes the exporter warn.
    return TraceExample((ids, mask), ({0: batch, 1: length}, {0: Dim.AUTO, 1: Dim.AUTO}))


def check_traceable(image_tower: ImageTower, text_tower: TextTower, image: ImageSpec, text: TextSpec) -> None:
    """Trace the towers whose architectures are not known to be traceable. Raises ConfigError when one is not."""
    family = type(image_tower.backbone).__module__.rpartition(".")[2]
    if family not in TRACED_IMAGE:
        _trace(image_tower, image_example(image), "image_tower", family)
    model_type = text_tower.encoder.config.model_type
    if model_type not in TRACED_TEXT:
        _trace(text_tower, text_example(text), "text_tower", model_type)


def _trace(tower: nn.Module, example: TraceExample, name: str, architecture: str) -> None:
    was_training = tower.training
    tower.eval()
    try:
        with torch.inference_mode():
            _export(tower, example).run_decompositions()
    except TRACING_ERRORS as error:
        raise ConfigError(
            f"{name}.name is of the architecture {architecture!r}, which torch.export cannot trace, so that it could "
            f"be trained and never exported: {first_line(error)} Choose another tower."
        ) from error
    finally:
        tower.train(was_training)


def _export(tower: nn.Module, example: TraceExample) -> torch.export.ExportedProgram:
    """Trace as torch.onnx.export does: without TorchDynamo, and with it where that fails."""
    try:
        return torch.export.export(tower, example.inputs, dynamic_shapes=example.dynamic_shapes, strict=False)
    except TRACING_ERRORS:
        return torch.export.export(tower, example.inputs, dynamic_shapes=example.dynamic_shapes, strict=True)

"""Whether a tower can be traced, as export traces it: found out before training, and not after it.

Tracing takes seconds, so that it is left out for the architectures whose export the tests cover.
"""

from __future__ import annotations

import torch
from torch import nn

from mmalign._compat import TRACING_ERRORS
from mmalign.errors import ConfigError
from mmalign.imported import ImportedImageTower, ImportedTextTower
from mmalign.signature import TraceExample, image_inputs, text_inputs, trace_example
from mmalign.towers.text import TextTower, first_line
from mmalign.towers.vision import ImageTower
from mmalign_runtime.spec import ImageSpec, TextSpec

# transformers' model types, and the modules of torchvision and timm, that tests/export/test_architectures.py exports.
TRACED_TEXT = frozenset(
    {
        *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "nomic_bert"),
        *("roberta", "xlm-roberta", "t5", "clip_text_model", "gpt2", "llama", "qwen2"),
    }
)
TRACED_IMAGE = frozenset({"convnext", "efficientnet", "resnet", "vision_transformer"})


def check_traceable(
    image_tower: ImageTower | ImportedImageTower,
    text_tower: TextTower | ImportedTextTower,
    image: ImageSpec,
    text: TextSpec,
) -> None:
    """Trace the towers whose architectures are not known to be traceable. Raises ConfigError when one is not."""
    family = type(image_tower.backbone).__module__.rpartition(".")[2]
    if family not in TRACED_IMAGE:
        _trace(image_tower, trace_example(image_inputs(image)), "image_tower", family)
    if isinstance(text_tower, ImportedTextTower):
        _trace(text_tower, trace_example(text_tower.inputs), "text_tower", text_tower.definition())
        return
    model_type = text_tower.encoder.config.model_type
    if model_type not in TRACED_TEXT:
        _trace(text_tower, trace_example(text_inputs(text)), "text_tower", model_type)


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

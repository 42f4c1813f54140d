"""The adapters of a model's towers, as a configuration asks for them: put in for training, and merged after it."""

from __future__ import annotations

from mmalign.config import Config
from mmalign.imported import ImportedTextTower
from mmalign.model import DualEncoder
from mmalign.signature import image_inputs, text_inputs, trace_example
from mmalign.towers.lora import LoraConfig, add_adapters, check_adapters, merge_adapters


def adapt_towers(model: DualEncoder, config: Config, *, checked: bool = False) -> None:
    """Put adapters into the towers that are to have them; with `checked`, see that the towers run them.

    Their weights are drawn from torch's generator. Raises ConfigError for a tower that cannot have them.
    """
    text = model.text_tower
    inputs = {
        "image_tower": image_inputs(config.image),
        "text_tower": text.inputs if isinstance(text, ImportedTextTower) else text_inputs(config.text),
    }
    for name, lora in _adapted(config).items():
        tower, key = model.get_submodule(name), f"{name}.lora"
        add_adapters(tower, lora, key)
        if checked:
            check_adapters(tower, trace_example(inputs[name]).inputs, key)


def merge_towers(model: DualEncoder, config: Config) -> None:
    """Merge the adapters of both towers into their weights."""
    for name in _adapted(config):
        merge_adapters(model.get_submodule(name))


def _adapted(config: Config) -> dict[str, LoraConfig]:
    asked = {"image_tower": config.image_tower.lora, "text_tower": config.text_tower.lora}
    return {name: lora for name, lora in asked.items() if lora.rank}

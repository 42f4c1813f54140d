"""Low-rank adapters (LoRA, Hu et al. 2021) on a tower whose weights stay as they are: peft's layers.

Training alone has them. What is evaluated and exported has them merged into the weights, and its tensors have the names
and shapes that the tower has without them. peft is imported where a configuration asks for adapters.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmalign.errors import ConfigError
from mmalign.memory import within_memory
from mmalign.towers.additions import is_added, pool_parameters
from mmalign.towers.depth import in_block

# What LoRA is here made for: GPT-2's linear layers are its own, transposed.
_LINEAR = (nn.Linear, Conv1D)


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters: the tower's weights stay as they are, and two narrow matrices beside each learn.

    Attributes:
        rank: How narrow the matrices are. 0 builds none.
        alpha: What they add is multiplied by `alpha / rank`.
        dropout: Dropout on what they read, in training.
        targets: Which linear layers have them: "auto" for those of all blocks, or a list of the last parts of their
            names, such as ["query", "value"], each of which the tower has. Those in `frozen_blocks` have none.
    """

    rank: Annotated[int, msgspec.Meta(ge=0)]
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    targets: Literal["auto"] | tuple[str, ...] = "auto"

    def check(self, *, frozen: bool) -> None:
        """Raise ValueError for adapters in a tower of which nothing is to learn."""
        if self.rank and frozen:
            raise ValueError(
                "lora learns beside weights that stay as they are, and frozen = true lets nothing learn; leave one out"
            )


def add_adapters(tower: nn.Module, config: LoraConfig, key: str) -> None:
    """Put adapters beside the linear layers of a tower that learn, and let nothing else of it learn but a pool.

    They add nothing before they have learned. `key` is the configuration's ("text_tower.lora"). Raises ConfigError when
    peft is not installed, the tower has no such layers, or the memory does not hold so wide a rank.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"{key} needs peft, which cannot be imported ({error}). Run `pip install 'mmalign[lora]'`."
        ) from error
    names = _targets(tower, config, key)
    wanted = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="|".join(map(re.escape, names)),  # a pattern for whole names: peft's lists match their ends
        fan_in_fan_out=isinstance(tower.get_submodule(names[0]), Conv1D),  # a tower has one kind or the other
    )
    with within_memory(f"{key}.rank = {config.rank}", "Choose a smaller one.", ConfigError):
        peft.inject_adapter_in_model(wanted, tower)
    for parameter in pool_parameters(tower):
        parameter.requires_grad_(True)


def check_adapters(tower: nn.Module, example: tuple[Tensor, ...], key: str) -> None:
    """Run a tower forward and back. Raises ConfigError for adapters that it goes past, reading the layer's weights."""
    names = {parameter: name for name, parameter in tower.named_parameters() if is_added(name)}
    was_training = tower.training
    with torch.enable_grad():
        features: Tensor = tower.eval()(*example)
        gradients = torch.autograd.grad(features.sum(), list(names), allow_unused=True)
    tower.train(was_training)
    unused = [name for name, gradient in zip(names.values(), gradients, strict=True) if gradient is None]
    if unused:
        layers = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in unused})
        raise ConfigError(
            f"{key}: the tower reads the weights of {', '.join(layers)} itself and would go past the adapters beside "
            f"them. Name other layers in {key}.targets, or leave {key} out."
        )


def merge_adapters(tower: nn.Module) -> None:
    """Add what adapters have learned to the weights beside them, and take the adapters out, in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(tower.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            tower.set_submodule(name, layer.get_base_layer(), strict=True)
    del tower.peft_config


def _targets(tower: nn.Module, config: LoraConfig, key: str) -> list[str]:
    linear = {
        name: layer
        for name, layer in tower.named_modules()
        if isinstance(layer, _LINEAR) and not is_added(f"{name}.weight")
    }
    learning = [name for name, layer in linear.items() if layer.weight.requires_grad]
    if config.targets == "auto":
        found = {"auto": [name for name in learning if in_block(f"{name}.weight")]}
    else:
        found = {target: [name for name in learning if f".{name}".endswith(f".{target}")] for target in config.targets}
    missing = [target for target, names in found.items() if not names]
    if missing or not found:
        asked = msgspec.json.encode(config.targets if config.targets == "auto" else missing).decode()
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
        raise ConfigError(
            f"{key}: the tower has no linear layers that learn with targets = {asked}; "
            f"its linear layers are {known}. Name some in {key}.targets, lower frozen_blocks, or leave {key} out."
        )
    return list(dict.fromkeys(chain(*found.values())))

"""The layers of a tower by depth, so that the first ones stay as they are or learn more slowly.

The layers are the stem (what comes before the blocks, embeddings above all), each block, and what follows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import msgspec
from torch import nn

from mmalign.errors import ConfigError
from mmalign.towers.additions import is_pool

# What timm, torchvision, transformers and open_clip call a tower's blocks: "layer.3", "blocks.2.1", "layer1.0",
# "stages.1.blocks.2", "resblocks.4", GPT-2's "h.5".
_BLOCK = re.compile(r"(?:^|\.)(?:layers?|blocks?|resblocks|stages?|h)(\d*)\.(\d+)\.(?:(?:blocks\.)?(\d+)\.)?")

# What open_clip's towers call the matrix after their blocks, which stands before them.
_PROJECTIONS = ("proj", "text_projection")


class Layers(msgspec.Struct, frozen=True):
    """The parameters of a tower by depth; `last` are those after the blocks."""

    stem: tuple[nn.Parameter, ...]
    blocks: tuple[tuple[nn.Parameter, ...], ...]
    last: tuple[nn.Parameter, ...]

    @property
    def by_depth(self) -> tuple[tuple[nn.Parameter, ...], ...]:
        """Return all of them, the stem first; what follows the blocks belongs to the last block."""
        return self.stem, *self.blocks[:-1], self.blocks[-1] + self.last


def in_block(name: str) -> bool:
    """Say whether a parameter is that of a block, by its name."""
    return _BLOCK.search(name) is not None


def layers_of(tower: nn.Module, key: str) -> Layers:
    """Return the layers of a tower, without a pool, which is none of its own.

    Raises ConfigError, naming the `key` that needs them, when it shows no blocks.
    """
    stem: list[nn.Parameter] = []
    blocks: dict[tuple[int, ...], list[nn.Parameter]] = {}
    last: list[nn.Parameter] = []
    for name, parameter in tower.named_parameters():
        if is_pool(name):
            continue
        if found := _BLOCK.search(name):
            place = tuple(-1 if part is None else int(part or 0) for part in found.groups())
            blocks.setdefault(place, []).append(parameter)
        else:
            is_stem = "embed" in name or (not blocks and not name.endswith(_PROJECTIONS))
            (stem if is_stem else last).append(parameter)
    if not blocks:
        raise ConfigError(
            f"{key} needs the blocks of a tower, and this one names none (such as layer.3 or blocks.3). Leave it out."
        )
    return Layers(tuple(stem), tuple(tuple(blocks[place]) for place in sorted(blocks)), tuple(last))


def freeze_first_blocks(tower: nn.Module, num_blocks: int, key: str) -> None:
    """Stop the stem and the first blocks of a tower from learning. Raises ConfigError when there are not as many."""
    layers = layers_of(tower, key)
    if num_blocks > len(layers.blocks):
        raise ConfigError(f"{key} is {num_blocks}, and the tower has {len(layers.blocks)} blocks. Set that or less.")
    for parameters in (layers.stem, *layers.blocks[:num_blocks]):
        for parameter in parameters:
            parameter.requires_grad_(False)


class Unfreezing:
    """Which layers of towers learn when, from the last block down to the stem: the others wait.

    Given are the towers that learn at all; with `every` 0 all their layers do from the start.
    """

    def __init__(self, towers: Sequence[nn.Module], every: int) -> None:
        self._every = every
        self._layers = [layers_of(tower, "optim.unfreeze_every").by_depth for tower in towers] if every else []

    def waiting(self, epoch: int) -> set[nn.Parameter]:
        """Return the parameters that do not learn yet in an epoch, counted from 0."""
        waiting = (layers[: max(0, len(layers) - epoch // self._every)] for layers in self._layers)
        return {parameter for layers in waiting for parameter in chain(*layers)}


class Modes:
    """The mode of each module of a model in a training step: what stands still in its towers is in evaluation mode.

    That is a module of which no parameter learns: no dropout, no batch statistics. Looking for them took a seventh of a
    step in which heads alone learn (measured), so it is done anew only when other parameters wait.
    """

    def __init__(self, model: nn.Module, towers: Sequence[nn.Module]) -> None:
        self._model = model
        self._towers = towers
        self._waiting: set[nn.Parameter] | None = None
        self._modes: list[tuple[nn.Module, bool]] = []

    def apply(self, waiting: set[nn.Parameter]) -> None:
        """Put every module into its mode, where parameters wait that do not learn yet."""
        if waiting != self._waiting:
            self._waiting, self._modes = waiting, self._found(waiting)
        for module, is_training in self._modes:
            module.training = is_training

    def _found(self, waiting: set[nn.Parameter]) -> list[tuple[nn.Module, bool]]:
        self._model.train()
        for tower in self._towers:
            for module in tower.modules():
                parameters = list(module.parameters())
                if parameters and not any(each.requires_grad and each not in waiting for each in parameters):
                    module.eval()
        return [(module, module.training) for module in self._model.modules()]

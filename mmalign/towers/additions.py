"""What is added to a pretrained tower: adapters, and a pool over a text's tokens. They may learn where it does not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

# What peft calls an adapter's matrices, and a text tower its pool.
_ADAPTERS = frozenset({"lora_A", "lora_B"})
_POOL = "pool."


def is_pool(name: str) -> bool:
    """Say whether a parameter of a tower is its pool's."""
    return name.startswith(_POOL)


def is_added(name: str) -> bool:
    """Say whether a parameter of a tower is an adapter's or its pool's, and so no pretrained one."""
    return is_pool(name) or not _ADAPTERS.isdisjoint(name.split("."))


def pool_parameters(tower: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a tower's pool, none of a tower without one."""
    return [parameter for name, parameter in tower.named_parameters() if is_pool(name)]


def learning_names(tower: nn.Module) -> Iterator[str]:
    """Yield the names of the parameters of a tower that learn."""
    return (name for name, parameter in tower.named_parameters() if parameter.requires_grad)


def is_still_below_pool(tower: nn.Module) -> bool:
    """Say whether nothing of a tower learns, but for a pool."""
    return all(map(is_pool, learning_names(tower)))


def pool_alone_learns(tower: nn.Module) -> bool:
    """Say whether a tower has a pool that learns, and nothing else of it does."""
    return is_still_below_pool(tower) and any(learning_names(tower))

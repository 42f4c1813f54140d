"""What a loaded embedder chose, for people and for logs."""

from __future__ import annotations

import msgspec


class TowerInfo(msgspec.Struct, frozen=True):
    """One loaded tower: its file, and how many nodes each execution provider took."""

    name: str
    file: str
    nodes_by_provider: dict[str, int]


class RuntimeInfo(msgspec.Struct, frozen=True):
    """Everything that was chosen, asked for or automatically, when an embedder was loaded."""

    bundle: str
    space_id: str
    variant_id: str
    embed_dim: int
    precision: str
    provider_asked: str
    provider: str
    num_threads: int
    towers: tuple[TowerInfo, ...]

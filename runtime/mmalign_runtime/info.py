"""What a loaded embedder chose, for people and for logs."""

from __future__ import annotations

import msgspec

from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.engine.session import DEFAULT_ENGINE, NodeGroup


class TowerInfo(msgspec.Struct, frozen=True):
    """One loaded tower: its file, what it was offered to with the options given, and which of them took which nodes."""

    name: str
    file: str
    providers: tuple[ProviderChoice, ...]
    nodes: tuple[NodeGroup, ...]

    def nodes_by_provider(self) -> dict[str, int]:
        """Return how many nodes each execution provider took."""
        counts: dict[str, int] = {}
        for group in self.nodes:
            counts[group.provider] = counts.get(group.provider, 0) + group.num_nodes
        return counts

    def elsewhere(self) -> tuple[NodeGroup, ...]:
        """Return the nodes that another provider took than the one that was asked for."""
        return tuple(group for group in self.nodes if group.provider != self.providers[0].name)


class RuntimeInfo(msgspec.Struct, frozen=True):
    """Everything that was chosen, asked for or automatically, when an embedder was loaded.

    A run uses `num_threads`; `num_runs` of them go on at once on the CPU, whoever calls. `towers` are those loaded
    by now, `jpeg_decoder` the package that decodes plain JPEGs for the image tower. A record without `engine` was made
    when onnxruntime was the only one.
    """

    bundle: str
    space_id: str
    variant_id: str
    embed_dim: int
    precision: str
    provider_asked: str
    provider: str
    num_threads: int
    num_runs: int
    allow_spinning: bool
    towers: tuple[TowerInfo, ...]
    engine: str = DEFAULT_ENGINE
    engine_version: str = ""
    jpeg_decoder: str | None = None
    cache: bool = False

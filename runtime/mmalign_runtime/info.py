"""What a loaded embedder chose, for people and for logs."""

from __future__ import annotations

import msgspec

from mmalign_runtime.config import ResolvedProvider, RuntimeConfig
from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.engine.session import NodeGroup


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


class RuntimeInfo(RuntimeConfig, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The config that an embedder was loaded with, as it was resolved here, and what became of it.

    A run uses `num_threads`; `num_runs` of them go on at once on the CPU, whoever calls. `towers` are those loaded
    by now, `jpeg_decoder` the package that decodes plain JPEGs for the image tower. Fields that an older record lacks
    have the value that was the only one then.
    """

    bundle: str
    space_id: str
    variant_id: str
    embed_dim: int
    provider_asked: str
    provider: ResolvedProvider
    num_threads: int
    num_runs: int
    towers: tuple[TowerInfo, ...]
    engine_version: str = ""
    jpeg_decoder: str | None = None

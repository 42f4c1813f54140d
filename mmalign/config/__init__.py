"""The configuration of a run: typed settings, read from TOML and held to their bounds."""

from __future__ import annotations

from mmalign.config.data import DataConfig, StreamConfig
from mmalign.config.settings import (
    Config,
    EvaluateConfig,
    Natural,
    TrainConfig,
    differing_keys,
    dump_config,
    load_config,
    load_dumped,
    parse_config,
)

__all__ = [
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "Natural",
    "StreamConfig",
    "TrainConfig",
    "differing_keys",
    "dump_config",
    "load_config",
    "load_dumped",
    "parse_config",
]

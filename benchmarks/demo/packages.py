"""The packages of weights that the demo's towers come from, for code that loads them without a configuration."""

import msgspec

from benchmarks.harness.places import ROOT
from mmalign.towers.weights import PackagedWeights, register_packages

PACKAGES = ROOT / "benchmarks/demo/packages.toml"


def register_demo_packages() -> None:
    register_packages(msgspec.toml.decode(PACKAGES.read_bytes(), type=dict[str, PackagedWeights]))

"""The environment card, where benchmarks/gpu looks for it."""

from benchmarks.harness.environment import Environment, Watch

__all__ = ["Environment", "Watch"]

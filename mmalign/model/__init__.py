"""The model that learns: two towers with their heads, the attention between them, and batches in chunks."""

from __future__ import annotations

from mmalign.model.dual_encoder import DualEncoder, ModelConfig, freeze, is_frozen

__all__ = ["DualEncoder", "ModelConfig", "freeze", "is_frozen"]

"""The card a measurement carries: what ran, on what, and when."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.providers import import_onnxruntime
from mmalign_runtime.info import RuntimeInfo


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The card a measurement carries: what ran, on what, and when (ISO 8601, UTC)."""

    date: str
    cpu: str
    platform: str
    python: str
    mmalign_runtime: str
    onnxruntime: str
    runtime: RuntimeInfo


def environment_card(embedder: Embedder) -> Environment:
    """Describe this machine and what the embedder chose on it."""
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=cpu_name(),
        platform=platform.platform(),
        python=platform.python_version(),
        mmalign_runtime=version("mmalign-runtime"),
        onnxruntime=str(import_onnxruntime().__version__),
        runtime=embedder.info(),
    )

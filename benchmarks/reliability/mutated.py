"""Runs tests in a forked child that imports one module from another source. Nothing is written over.

Forked, because importing the large libraries takes longer than most of the tests.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

TIMED_OUT = -1

_BROKEN = 70
_OURS = frozenset({"mmalign", "mmalign_runtime", "mmalign_export", "benchmarks", "tests"})
# Plugins of pytest, the large libraries, and ours for what they import themselves.
_PRELOADED = (
    *("anyio.pytest_plugin", "hypothesis.strategies", "onnxruntime", "pyarrow", "torch", "transformers"),
    *("mmalign_runtime.verify", "mmalign_export.export", "mmalign_export.quantize.run"),
)
# Plugins of pytest that are imported already are not rewritten, which matters to none of them.
_PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


def preload() -> None:
    """Import what children would import each for itself, and keep libraries to one thread."""
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
    for name in _PRELOADED:
        import_module(name)
    _forget_ours()


def _forget_ours() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]


def run_tests(module: str, source: str, tests: Sequence[Path], limit_s: float) -> tuple[int, str]:
    """Run tests while a module has another source; return pytest's exit status or TIMED_OUT, and what it said.

    Raises RuntimeError when pytest could not run at all.
    """
    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            _in_child(module, source, tests, told.fileno())
        status = _wait(child, limit_s)
        told.seek(0)
        words = told.read()
    if status == _BROKEN:
        raise RuntimeError(f"{module}: pytest did not run:\n{words}")
    return status, words


def _wait(child: int, limit_s: float) -> int:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _in_child(module: str, source: str, tests: Sequence[Path], output: int) -> NoReturn:
    status = _BROKEN
    try:
        os.setpgid(0, 0)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        _forget_ours()
        sys.meta_path.insert(0, _Finder(module, source))  # type: ignore[arg-type]
        status = int(pytest.main([*_PYTEST, *map(str, tests)]))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Finder:
    """Finds one module, and gives it another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self._module else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self._source.encode())
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_data(self, path: str) -> bytes:
        return self._source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, float]:  # type: ignore[override]
        raise OSError("no compiled file, neither read nor written")

"""Runs tests on a module with another source, in forked children. Nothing is written over.

In place: pytest collects once, and each child executes the other source in the imported module and gives the new
objects to whoever has the old ones; tens of milliseconds a mutant. What was made of the old ones meanwhile stays, so a
mutant that lives there is run once more afresh: a child imports everything anew.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import msgspec
import pytest
from _pytest.main import pytest_runtestloop
from hypothesis import Phase, settings

PASSED, TIMED_OUT = 0, -1

_BROKEN = 70
_OURS = frozenset({"mmalign", "mmalign_runtime", "mmalign_export", "benchmarks", "tests"})
# Plugins of pytest, the large libraries, and ours for what they import themselves.
_PRELOADED = (
    *("anyio.pytest_plugin", "hypothesis.strategies", "onnxruntime", "pyarrow", "torch", "transformers"),
    *("mmalign_runtime.verify", "mmalign_export.to_bundle", "mmalign_export.quantization.run"),
)
# Plugins of pytest that are imported already are not rewritten, which matters to none of them.
_PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
# Tests of a mutant that take this many times as long as without it, and some seconds more, hang.
_PATIENCE, _PATIENCE_S = 5, 20
_PATIENT_S = 600.0
_NOWHERE = Path(os.devnull)


def preload() -> None:
    """Import what children would import each for itself, and keep libraries to one thread.

    Examples of hypothesis are not made smaller once one fails, and none is remembered: failing is all that counts.
    """
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
    for name in _PRELOADED:
        import_module(name)
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", phases=phases, database=None, deadline=None, derandomize=True)
    settings.load_profile("mutation")
    _forget_ours()


def run_in_place(
    module: str, original: str, mutants: Sequence[str], tests: Sequence[Path], num_workers: int
) -> list[int]:
    """Run tests on each mutant of a module, in place; return pytest's exit statuses, or TIMED_OUT.

    Raises RuntimeError where the tests fail on the original.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, words = Path(folder) / "statuses.json", Path(folder) / "words"

        def collect_and_run() -> int:
            plugin = _InPlace(module, original, mutants, num_workers)
            _forget_ours()
            status = int(pytest.main([*_PYTEST, *map(str, tests)], plugins=[plugin]))
            answer.write_bytes(msgspec.json.encode(plugin.statuses))
            return status

        wait(start(collect_and_run, words), _PATIENT_S * (1 + len(mutants)))
        statuses = msgspec.json.decode(answer.read_bytes(), type=list[int] | None) if answer.is_file() else None
        if statuses is None:
            raise RuntimeError(f"the tests of {module} fail as it stands:\n{words.read_text(errors='replace')}")
        return statuses


def run_afresh(module: str, source: str, tests: Sequence[Path], limit_s: float = _PATIENT_S) -> int:
    """Run tests in a child that imports everything anew, and one module from another source."""

    def import_and_run() -> int:
        _forget_ours()
        sys.meta_path.insert(0, _Finder(module, source))  # type: ignore[arg-type]
        return int(pytest.main([*_PYTEST, *map(str, tests)]))

    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words"
        status = wait(start(import_and_run, words), limit_s)
        if status == _BROKEN:
            raise RuntimeError(f"{module}: pytest did not run:\n{words.read_text(errors='replace')}")
        return status


class _InPlace:
    """A plugin of pytest: in place of running what was collected once, runs it in a child a mutant."""

    def __init__(self, module: str, original: str, mutants: Sequence[str], num_workers: int) -> None:
        self.statuses: list[int] | None = None
        self._module = module
        self._original = original
        self._mutants = mutants
        self._num_workers = num_workers

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the original, which must pass, and then every mutant, some at once."""
        start_s = time.monotonic()
        if wait(self._start(session, self._original), _PATIENT_S) != PASSED:
            _replace(sys.modules[self._module], self._original, session.items)
            return bool(pytest_runtestloop(session))  # shows what fails
        limit_s = _PATIENCE * (time.monotonic() - start_s) + _PATIENCE_S
        self.statuses = []
        for first in range(0, len(self._mutants), self._num_workers):
            together = self._mutants[first : first + self._num_workers]
            children = [self._start(session, source) for source in together]
            self.statuses += [wait(child, limit_s) for child in children]
        return True

    def _start(self, session: pytest.Session, source: str) -> int:
        def replace_and_run() -> int:
            try:
                _replace(sys.modules[self._module], source, session.items)
                pytest_runtestloop(session)
            except BaseException:  # noqa: BLE001 whatever the mutant raises at import or in pytest, it was noticed
                return 1
            return int(session.testsfailed > 0)

        import_module(self._module)
        return start(replace_and_run)


def _replace(module: ModuleType, source: str, items: Sequence[pytest.Item]) -> None:
    """Execute a source in a module, and give its new objects to whoever has the old ones.

    That is our modules that imported them by name, and the parameters of tests.
    """
    old = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), vars(module))
    new = {id(value): vars(module)[key] for key, value in old.items() if callable(value)}
    for params in (item.callspec.params for item in items if hasattr(item, "callspec")):
        params.update({key: new[id(value)] for key, value in params.items() if id(value) in new})
    for name, other in list(sys.modules.items()):
        if name.partition(".")[0] in _OURS and other is not module:
            for key, value in list(vars(other).items()):
                if key in old and value is old[key] and not key.startswith("__"):
                    setattr(other, key, vars(module)[key])


def start(work: Callable[[], int], words: Path = _NOWHERE) -> int:
    """Fork a child that does the work and ends with the status that it returns; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _end_with(work, words)
    return child


def _end_with(work: Callable[[], int], words: Path) -> NoReturn:
    status = _BROKEN
    try:
        os.setpgid(0, 0)
        output = os.open(words, os.O_WRONLY | os.O_CREAT)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        status = work()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, limit_s: float) -> int:
    """Return a child's exit status; one that is not through in time is killed with its children: TIMED_OUT."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _forget_ours() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]


class _Finder:
    """Finds one module, and gives it another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's spec with another loader, and None for all others."""
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

"""The process that atheris drives: `python tests/fuzz/harness.py TARGET FINDINGS_DIR [libFuzzer's arguments]`.

Start it through run.py. An exception does not end it: the input is kept under FINDINGS_DIR, once for each place that
raises, and fuzzing goes on. A crash, a hang or too much memory does end it, and libFuzzer keeps the input.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris  # type: ignore[import-untyped]

# Pillow imports a plugin when it first meets its format: all of them now, so that their branches are counted.
with atheris.instrument_imports(include=["mmalign_runtime", "PIL"]):
    from PIL import Image

    Image.init()
    import mmalign_runtime.bundle  # noqa: F401 - the archive target imports it when it is called
    from tests.fuzz.mutators import MUTATORS
    from tests.fuzz.targets import TARGETS


class Findings:
    """Runs a check and keeps the inputs it fails on, one for each exception type and place that raises."""

    def __init__(self, check: Callable[[bytes], None], folder: Path) -> None:
        self._check = check
        self._folder = folder
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Run the check on one input."""
        try:
            self._check(data)
        except Exception as error:  # noqa: BLE001 - whatever is raised here is the finding
            self._keep(data, error)

    def _keep(self, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        key = hashlib.sha256(f"{type(error).__name__} {place}".encode()).hexdigest()[:12]
        if key in self._seen:
            return
        self._seen.add(key)
        (self._folder / f"unnamed-{key}").write_bytes(data)
        (self._folder / f"unnamed-{key}.txt").write_text(f"{place}: {error!r}\n", encoding="utf-8")


def main() -> None:
    """Fuzz one target until libFuzzer's limits are reached."""
    name, folder, *arguments = sys.argv[1:]
    check = Findings(TARGETS[name], Path(folder))
    mutator = MUTATORS.get(name)
    # To merge, libFuzzer starts its own command line again, through a shell: this is what it must find there.
    again = shlex.join([sys.executable, sys.argv[0], name, folder])
    if mutator is None:
        atheris.Setup([again, *arguments], check)
    else:

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            return mutator(data, max_size, seed, atheris.Mutate)

        atheris.Setup([again, *arguments], check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

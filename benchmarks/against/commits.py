"""The runtime of this checkout against that of another commit, interleaved: bulk, single items, cold start, import.

python -m benchmarks.against.commits --before HEAD~1 --out commits.json

The other commit is checked out into a folder of its own, and its worker finds the packages there. Both embed the same
items of the same bundle, in an order drawn anew each round; a ratio above 1 says that this checkout takes longer.
"""

import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
from typer import Option

from benchmarks.against.cold_start import ONE, OUR_START
from benchmarks.against.entries import PLAIN, Entry
from benchmarks.against.images import build_image_sets
from benchmarks.against.models import ModelSource, prepare_files
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Measure, Setting
from benchmarks.against.texts import build_text_sets
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import CACHE, DEMO_BUNDLE, ROOT
from benchmarks.harness.processes import first_line_s
from benchmarks.harness.timing import Spread, interleaved, median_ms, paired_speedups, spread
from mmalign_runtime.engine.threads import available_threads

BEFORE, NOW = "before", "now"
# A call long enough to be steady: the sets have 32 items.
_NUM_TEXTS = 128


class Compared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of work: median milliseconds (an item, or a start) of both, and the ratio now to before by rounds."""

    work: str
    before_ms: float
    now_ms: float
    ratio: Spread


def works() -> dict[str, Measure]:
    """Return what is embedded, by name: sets at once, and one item at a time."""
    images, texts, found = build_image_sets(CACHE), build_text_sets(CACHE), {}
    for name in ("mixed", "web"):
        found[f"images, {name}"] = Measure("image", tuple(map(str, images[name])), Setting(), lead_in=2)
    for name in ("mixed", "queries"):
        found[f"texts, {name}"] = Measure("text", (texts[name] * _NUM_TEXTS)[:_NUM_TEXTS], Setting(), lead_in=2)
    for kind, item in ONE.items():
        found[f"one {kind}"] = Measure(kind, (item,) * 4, Setting(), one_by_one=True)
    return found


def starts() -> dict[str, list[str]]:
    found = {"import": ["-c", "import mmalign_runtime; print(flush=True)"]}
    for kind, item in ONE.items():
        found[f"first {kind}"] = ["-c", OUR_START.format(kind=kind, cache=False), str(DEMO_BUNDLE), item]
    return found


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(place), commit], cwd=ROOT, check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(place)], cwd=ROOT, check=True)


def compare(trees: Mapping[str, Path], num_rounds: int) -> list[Compared]:
    rng, found = random.Random(0), []
    with ExitStack() as stack:
        files = prepare_files(ModelSource("commits", DEMO_BUNDLE, run=Path()), CACHE)
        processes = {}
        for name, tree in trees.items():
            entry, start = Entry(name, name, "mmalign", PLAIN), (Path(sys.executable), files, available_threads())
            process = PeerProcess(entry, *start, CACHE / "workers.log", packages_of(tree))
            processes[name] = stack.enter_context(process)
        for work, request in works().items():
            calls = {name: partial(process.median_s, request) for name, process in processes.items()}
            found.append(_compared(work, interleaved(calls, num_rounds, rng)))
    for work, arguments in starts().items():
        command = [sys.executable, *arguments]
        calls = {name: partial(first_line_s, command, packages_of(tree)) for name, tree in trees.items()}
        found.append(_compared(work, interleaved(calls, num_rounds, rng, num_untimed=1)))  # the first writes bytecode
    return found


def packages_of(tree: Path) -> tuple[Path, ...]:
    return (tree, tree / "runtime", tree / "export")


def _compared(work: str, laps: Mapping[str, list[float]]) -> Compared:
    ratio = spread(paired_speedups(laps[NOW], laps[BEFORE]))
    found = Compared(work, median_ms(laps[BEFORE]), median_ms(laps[NOW]), ratio)
    print(f"{work:16} {found.before_ms:9.2f} {found.now_ms:9.2f} ms  {ratio.p50:.3f}", flush=True)
    return found


def _revision(commit: str) -> str:
    return subprocess.check_output(["git", "rev-parse", "--short", commit], cwd=ROOT, text=True).strip()


def main(
    before: Annotated[str, Option(help="the other commit")],
    rounds: int = 15,
    out: Annotated[Path | None, Option(help="the JSON file that gets the results")] = None,
) -> None:
    watch = Watch()
    with checked_out(before) as tree:
        cases = compare({BEFORE: tree, NOW: ROOT}, rounds)
    if out:
        watch.write(out, before=_revision(before), now=_revision("HEAD"), cases=cases)


if __name__ == "__main__":
    run(main)

"""`mmalign embed` killed with SIGKILL at random moments, resumed, and compared with a run that nothing stopped.

Trials take turns at what is written and when it is killed: a single file while its parts are merged, a folder at any
time, a single file around a random part, a folder around a random part. A third of the resumed runs are killed once
more.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from mmalign_runtime.bulk.parts import ERRORS_NAME, errors_path
from mmalign_runtime.parquet import row_groups
from mmalign_runtime.saved.manifest import read_manifest

# With these a run on the tiny bundle lasts about two seconds, a third of it the start of the process.
NUM_TEXTS = 12_000
PART_ROWS = 256
# One text in so many is no UTF-8, so that failures are part of what must survive.
BAD_EVERY = 97
KILLED_AGAIN = 1 / 3
_POLL_S = 0.0005
# About what the merge, and one part, take.
_MERGE_S = 0.1
_PART_S = 0.03

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tiny_bundle"

Aim: TypeAlias = Literal["time", "merge", "part"]


class Trial(msgspec.Struct, frozen=True):
    """One kill: where it landed, whether what it left was whole, and whether the resumed rows are the very same."""

    output: str
    phase: str
    whole: bool
    resumed_equal: bool


class Workplace(msgspec.Struct, frozen=True):
    """A folder with the input, the uninterrupted run's rows, and how long that run took."""

    folder: Path
    texts: Path
    expected: list[object]
    seconds: float


def prepare(folder: Path, num_texts: int = NUM_TEXTS) -> Workplace:
    """Write the input and run once without interruption."""
    draw = random.Random(0)
    texts = folder / "texts.txt"
    words = [b"a", b"dog", b"on", b"the", b"beach", b"red", b"kite", "été".encode()]
    lines = (
        b"caf\xe9" if n % BAD_EVERY == 0 else b" ".join(draw.choices(words, k=1 + n % 9)) for n in range(num_texts)
    )
    texts.write_bytes(b"\n".join(lines))
    out, start = folder / "expected.parquet", time.perf_counter()
    if subprocess.run(command(texts, out), capture_output=True).returncode != 1:  # some fail, by design
        raise RuntimeError("the uninterrupted run did not end as expected")
    return Workplace(folder, texts, rows(out), time.perf_counter() - start)


def command(texts: Path, out: Path, *options: str) -> list[str]:
    """Return the command line of one run."""
    words = ["embed", str(FIXTURE), str(texts), "--kind", "text", "--threads", "1", "--part-rows", str(PART_ROWS)]
    return [sys.executable, "-c", "from mmalign_runtime.cli import main; main()", *words, "--out", str(out), *options]


def rows(out: Path) -> list[object]:
    """Return every row of an output, vectors and failures, in order."""
    if out.is_dir():
        tables = [*sorted(out.glob("part-*")), *sorted((out / ERRORS_NAME).glob("part-*"))]
    else:
        tables = [out, errors_path(out)]
    return [row for path in tables for group in row_groups(path) for row in group.to_pylist()]


def run_trial(place: Workplace, seed: int) -> Trial:
    """Kill one run, perhaps twice, resume it and compare."""
    draw = random.Random(seed)
    out = place.folder / ("vectors" if seed % 2 else "vectors.parquet")
    clear(out)
    aims: tuple[Aim, ...] = ("merge", "time", "part", "part")
    kill(command(place.texts, out), out, draw, place, aims[seed % len(aims)])
    phase, whole = look(out)
    if draw.random() < KILLED_AGAIN:
        kill(command(place.texts, out, "--resume"), out, draw, place, "time")
        whole = whole and look(out)[1]
    resumed = subprocess.run(command(place.texts, out, "--resume"), capture_output=True)
    left = [path.name for path in place.folder.iterdir() if path.name.startswith((".", "vectors.parquet.parts"))]
    left += [path.name for path in out.glob(".*")] if out.is_dir() else []
    equal = resumed.returncode == 1 and not left and rows(out) == place.expected
    return Trial(out.suffix or "folder", phase, whole, equal)


def kill(words: Sequence[str], out: Path, draw: random.Random, place: Workplace, aim: Aim) -> None:
    """Start a run and kill it at a random moment of its life or its merge, or while a random part is made."""
    num_parts = draw.randrange(NUM_TEXTS // PART_ROWS)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        aim == "time"
        or (aim == "merge" and _is_merging(out))
        or (aim == "part" and len(list(_parts_folder(out).glob("part-*"))) >= num_parts)
    ):
        time.sleep(_POLL_S)
    time.sleep(draw.uniform(0, {"time": place.seconds, "merge": _MERGE_S, "part": _PART_S}[aim]))
    process.kill()
    process.wait()


def look(out: Path) -> tuple[str, bool]:
    """Say what a kill left: the phase it landed in, and whether every file that counts can be read to its end."""
    folder = _parts_folder(out)
    manifest = read_manifest(folder) if folder.is_dir() else None
    tables = [*folder.glob("part-*"), *(folder / ERRORS_NAME).glob("part-*")]
    tables += [path for path in (out, errors_path(out)) if path.is_file()]
    try:
        num_rows = sum(group.num_rows for path in tables for group in row_groups(path))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what the trial looks for)
        print(f"not whole: {error}")
        return "damaged", False
    if manifest is None:
        return ("done" if num_rows else "before the first part"), True
    if manifest.is_complete:
        return ("done" if folder == out else "merged, parts left" if out.exists() else "merging"), True
    return ("embedding" if num_rows else "before the first part"), True


def clear(out: Path) -> None:
    """Remove what an earlier trial left."""
    for path in (out, _parts_folder(out)):
        shutil.rmtree(path, ignore_errors=True)
    for path in (out, errors_path(out)):
        path.unlink(missing_ok=True)


def _parts_folder(out: Path) -> Path:
    return out.with_name(out.name + ".parts") if out.suffix else out


def _is_merging(out: Path) -> bool:
    folder = _parts_folder(out)
    manifest = read_manifest(folder) if folder.is_dir() else None
    return manifest is not None and manifest.is_complete

"""kill -9 in the middle of an export over an existing bundle: python -m benchmarks.reliability kill_export

Half of the kills fall anywhere in a real export of tiny towers, from tracing to the last rename. Few of those would
meet the replacement of the old folder, which takes a millisecond: the others fall into writing a finished bundle's
files and putting them in place, the last of them around the very swap.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import msgspec
import torch

import mmalign_export.staging as staging_module
from benchmarks.reliability.record import Row, fell_into, record
from benchmarks.reliability.trials import Killed, Phases, kill_at, measure, moments
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign_export import export_model
from mmalign_export import to_bundle as export_module
from mmalign_export.staging import staged
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import BundleError
from mmalign_runtime.spec import SPEC_NAME
from mmalign_runtime.verify import verify_bundle
from tests.make_tiny_bundle import tiny_run

NUM_TRIALS = 50
_NUM_MEASURED = 2
# Past the measured end some kills come too late, which shows that the last moments were tried too.
_BEYOND = 1.05
_SWAP = "putting the folder in place"
# About what the swap and the removal of the old folder's first files take.
_SWAP_S = 0.001
_STAGES = {
    "write_preprocess": "writing the preprocessing graph",
    "export_onnx": "tracing and writing a tower",
    "write_side_files": "writing tokenizer and configurations",
    "make_golden": "making golden cases",
    "write_golden": "writing golden cases",
    "write_spec": "hashing files and writing bundle.json",
    "write_sealed": "hashing what came after, and sealing bundle.json",
    "run_bench": "timing for the card",
}


class Trial(msgspec.Struct, frozen=True):
    """One kill and what was at the bundle's path after it: "old", "new", or what was wrong with it."""

    kind: str
    killed: Killed
    found: str
    num_leftovers: int


class Details(msgspec.Struct, frozen=True):
    """All trials, how long the work takes, and what lay beside the bundle after one more export."""

    export_s: float
    replacement_s: float
    trials: tuple[Trial, ...]
    left_after_next_export: tuple[str, ...]


def run_trials(folder: Path, num_trials: int, seed: int) -> Details:
    """Kill exports to folder/out/bundle."""
    run, out, phases = tiny_run(folder / "run"), folder / "out" / "bundle", Phases(folder / "phases")
    export_model(dual_model(run), out, force=True)
    _note_phases(phases)
    ready = folder / "ready"
    shutil.copytree(out, ready)
    export = partial(_export, run, out, phases)
    replace = partial(_replace_with, ready, out, phases)
    durations_s = {kind: measure(work, _NUM_MEASURED) for kind, work in (("export", export), ("replacement", replace))}
    num_swaps, num_replaced = num_trials // 4, num_trials // 4
    plans = (
        ("export", export, durations_s["export"] * _BEYOND, num_trials - num_swaps - num_replaced, ""),
        ("replacement", replace, durations_s["replacement"] * _BEYOND, num_replaced, ""),
        ("swap", replace, _SWAP_S, num_swaps, _SWAP),
    )
    trials = []
    for kind, work, duration_s, num_kind, phase in plans:
        for after_s in moments(duration_s, num_kind, seed):
            before = (out / SPEC_NAME).read_bytes()
            if kind != "export":  # so that old and new are told apart
                _set_apart(ready, out)
            killed = kill_at(work, after_s, phases.path, phase)
            leftovers = len(list(out.parent.iterdir())) - out.exists()
            trials.append(Trial(kind, killed, _found(out, before), leftovers))
            print(f"{kind} {killed.after_ms:.1f} ms, {killed.phase}: {trials[-1].found}", file=sys.stderr)
    export()
    left = tuple(sorted(path.name for path in out.parent.iterdir() if path != out))
    return Details(round(durations_s["export"], 2), round(durations_s["replacement"], 3), tuple(trials), left)


def _export(run: Run, out: Path, phases: Phases) -> None:
    phases.enter("before the folder is made")
    export_model(dual_model(run), out, force=True)  # a model of its own: sessions do not outlive a fork


def _replace_with(ready: Path, out: Path, phases: Phases) -> None:
    with staged(out, force=True) as stage:
        phases.enter("writing a finished bundle's files")
        shutil.copytree(ready, stage, dirs_exist_ok=True)


def _set_apart(ready: Path, out: Path) -> None:
    """Let the bundle to be written be another one than the bundle in place, by a line in the card."""
    from mmalign_runtime.bundle.hashes import sha256_of_file
    from mmalign_runtime.spec import decode_spec, encode_spec

    card = ready / "README.md"
    marked = (out / "README.md").read_text(encoding="utf-8").endswith("\n\n")
    card.write_text(card.read_text(encoding="utf-8").rstrip("\n") + ("\n" if marked else "\n\n"), encoding="utf-8")
    spec = decode_spec((ready / SPEC_NAME).read_bytes())
    files = spec.files | {"README.md": sha256_of_file(card)}
    (ready / SPEC_NAME).write_bytes(encode_spec(msgspec.structs.replace(spec, files=files)))


def _note_phases(phases: Phases) -> None:
    for function, name in _STAGES.items():
        phases.wrap(export_module, function, name)
    phases.wrap(staging_module, "_replace", _SWAP)
    phases.wrap(staging_module, "_remove", "removing the old folder or leftovers")


def _found(out: Path, old_spec: bytes) -> str:
    """Return "old" or "new" for a bundle whose every file has its hash, else what is wrong."""
    try:
        open_bundle(out, use_memory=False)
    except BundleError as error:
        return str(error)
    return "old" if (out / SPEC_NAME).read_bytes() == old_spec else "new"


def run(trials: int = NUM_TRIALS, seed: int = 0) -> None:
    """Kill, look, and record."""
    torch.set_num_threads(1)  # a forked child has none of its parent's threads
    with tempfile.TemporaryDirectory() as folder:
        details = run_trials(Path(folder), trials, seed)
        is_proven = verify_bundle(Path(folder) / "out" / "bundle", provider="cpu").passed
    good = sum(trial.found in ("old", "new") for trial in details.trials)
    measured = (
        f"{fell_into(trial.killed.phase for trial in details.trials)}; left beside the "
        f"bundle by the next export: {', '.join(details.left_after_next_export) or 'nothing'}; "
        f"`verify` after that: {'passed' if is_proven else 'FAILED'}"
    )
    row = Row("kill -9 in an export over an existing bundle", trials, good, measured)
    record("kill_export", [row], details, is_kept=trials >= NUM_TRIALS)

"""`mmalign embed` as a process of its own: killed, interrupted, started twice, on a full disk."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")

from tests.runtime.cli.killed_embed import Workplace, clear, command, prepare, rows, run_trial
from tests.trials import num_trials


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return prepare(tmp_path_factory.mktemp("place"))


def heed_signals() -> None:
    """Undo what a shell in the background ignores, and nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(place: Workplace, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start a run and wait for its first part."""
    process = subprocess.Popen(
        command(place.texts, out, *options),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    while process.poll() is None and not list(out.glob("part-*")):
        time.sleep(0.001)
    return process


def test_a_killed_run_goes_on_to_the_same_rows(place: Workplace) -> None:
    trials = [run_trial(place, seed) for seed in range(num_trials(4))]
    assert all(trial.whole and trial.resumed_equal for trial in trials), trials


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_says_how_to_go_on(place: Workplace, number: signal.Signals, code: int) -> None:
    out = place.folder / "interrupted"
    clear(out)
    with start(place, out) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "items are done and safe. Go on with:\nmmalign embed " in err
    again = shlex.split(err.splitlines()[-1])
    entry = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()"]
    assert subprocess.run([*entry, *again[1:]], capture_output=True).returncode == 1  # some texts fail, by design
    assert rows(out) == place.expected


def test_a_second_writer_is_refused(place: Workplace) -> None:
    out = place.folder / "shared"
    with start(place, out) as process:
        process.send_signal(signal.SIGSTOP)  # or it may be through before the second has started
        second = subprocess.run(command(place.texts, out, "--resume"), capture_output=True, text=True)
        process.send_signal(signal.SIGCONT)
        assert (second.returncode, "shared is being written by another process" in second.stderr) == (2, True)
        process.communicate(timeout=60)
    assert rows(out) == place.expected


@pytest.mark.parametrize("name", ["vectors", "vectors.parquet"])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    place: Workplace, small_disk: Path, name: str
) -> None:
    out = small_disk / name
    full = subprocess.run(command(place.texts, out), capture_output=True, text=True)
    assert (full.returncode, "Traceback" in full.stderr) == (2, False)
    assert "cannot be written: No space left on device. Make room" in full.stderr
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert subprocess.run(command(place.texts, out, "--resume"), capture_output=True).returncode == 1
    assert rows(out) == place.expected


def test_a_file_that_may_not_grow_is_named(place: Workplace, tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 8 && exec "$@"', "sh"]  # 4 or 8 kB, as the shell counts: less than one part
    words = command(place.texts, tmp_path / "vectors")
    result = subprocess.run([*limited, *words], capture_output=True, text=True)
    assert (result.returncode, "cannot be written: File too large" in result.stderr) == (2, True), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_right_to_write_is_named(place: Workplace) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("a folder that nobody may write to is missing: /proc")
    result = subprocess.run(command(place.texts, Path("/proc/self/vectors")), capture_output=True, text=True)
    assert (result.returncode, "/proc/self/vectors cannot be written" in result.stderr) == (2, True), result.stderr

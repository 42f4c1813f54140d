"""Signals to a real process that is in the middle of writing: what it was writing is removed, and its code says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign_runtime.cli.interrupts import Stop, stop_on_signals

# A verb that holds what verbs write: a folder, a file and scratch space, all half written.
CODE = """
import signal, sys, tempfile, time
from pathlib import Path
from mmalign_runtime.atomic import replacing
from mmalign_runtime.cli import app, main
from mmalign_runtime.staging import staging

# As a terminal has them: a shell in the background has the one ignored, and nohup the other.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL if sys.argv[2] == "terminal" else signal.SIG_IGN)

@app.command()
def write(place: Path):
    with staging(place / "bundle") as folder, replacing(place / "file") as file:
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            for each in (folder / "half", file, Path(scratch) / "half"):
                each.write_text("half")
            print("writing", flush=True)
            sys.stdin.readline()

main(["write", sys.argv[1]])
"""


def start(place: Path, under: str = "terminal") -> subprocess.Popen[str]:
    """Start the verb, and wait until it is in the middle."""
    command = [sys.executable, "-c", CODE, str(place), under]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert len(list(place.iterdir())) == 3
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_was_being_written_is_removed(name: str, tmp_path: Path) -> None:
    number = signal.Signals[name]
    with start(tmp_path) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", "")
    assert list(tmp_path.iterdir()) == []


def test_two_signals_at_once_are_one_wish(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (129, 143)
    assert list(tmp_path.iterdir()) == []


def test_what_nohup_has_ignored_stays_ignored(tmp_path: Path) -> None:
    with start(tmp_path, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_signal_while_files_are_removed_does_not_end_that() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        stop.note(signal.SIGTERM, None)
    stop.note(signal.SIGHUP, None)
    assert stop.exit_code == 129


def test_a_child_of_a_fork_ends_by_the_signal() -> None:
    with stop_on_signals():
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_handlers_are_as_they_were_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before

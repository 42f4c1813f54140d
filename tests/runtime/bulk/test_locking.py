import subprocess
import sys
from pathlib import Path

import pytest

from mmalign_runtime.bulk.locking import LOCK_NAME, only_writer
from mmalign_runtime.errors import InputError

pytest.importorskip("fcntl", reason="what a system without locks does is made with fcntl, which Windows has not")

HOLD = """
import sys, time
from pathlib import Path
from mmalign_runtime.bulk.locking import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_leaves_nothing(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is being written by another process"), only_writer(tmp_path):
            pass
        process.kill()
    with only_writer(tmp_path):
        pass


def test_a_file_system_without_locks_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_writer(tmp_path):
        pass
    assert "no file locks there (Operation not supported)" in caplog.text


def test_the_same_process_does_not_write_twice(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        with pytest.raises(InputError, match="is being written by another process"), only_writer(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).exists()


def test_an_error_of_the_lock_that_says_nothing_of_locks_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="Input/output error"), only_writer(tmp_path):
        pass

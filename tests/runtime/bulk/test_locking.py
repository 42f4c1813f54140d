import subprocess
import sys
from pathlib import Path

import pytest

from mmalign_runtime.bulk.locking import LOCK_NAME, only_writer
from mmalign_runtime.errors import InputError

pytest.importorskip("fcntl", reason="file locks need fcntl, which Windows has not")

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

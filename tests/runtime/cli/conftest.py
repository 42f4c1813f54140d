"""Run the command line as a user does: through `main`, which turns errors into one line and an exit code."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from mmalign_runtime.cli import main


class Outcome(msgspec.Struct, frozen=True):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call `mmalign` with these words, on a terminal wide enough not to break a line."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: object) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return run

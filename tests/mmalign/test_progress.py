from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from mmalign import progress
from mmalign.progress import ConsoleHandler, Pace, log_to_stderr, track


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Stand in for a terminal 80 columns wide."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    return screen


def test_without_a_terminal_one_line_says_what_was_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(progress, "stderr_console", lambda: Console(file=file))
    with caplog.at_level(logging.INFO):
        assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert caplog.messages[0].startswith("letters: done in")
    assert file.getvalue() == ""


def test_in_a_terminal_a_bar_is_shown(terminal: io.StringIO) -> None:
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert "letters" in terminal.getvalue()


def test_it_is_told_which_of_loader_and_model_waits(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("mmalign.progress.time.perf_counter", lambda: now[0])

    def loader() -> Iterator[int]:
        for number in range(3):
            now[0] += 3.0  # a batch takes three seconds to load
            yield number

    pace = Pace()
    with caplog.at_level(logging.INFO):
        for _ in pace.waiting(loader()):
            with pace.stepping(40):
                now[0] += 1.0
            now[0] += 100.0  # a validation counts for neither
        pace.tell()
        pace.tell()  # nothing since
    assert caplog.messages == ["10 pairs/s: 75% of the time waits for the loader, the model alone takes 40 pairs/s"]


def test_log_lines_are_printed_as_they_are(terminal: io.StringIO) -> None:
    record = logging.LogRecord("mmalign", logging.INFO, "", 0, "[red] %s", ("x" * 100,), None)
    ConsoleHandler().emit(record)
    assert terminal.getvalue() == f"[red] {'x' * 100}\n"


def test_log_lines_go_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    root, package = logging.getLogger(), logging.getLogger("mmalign")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(package, "level", package.level)
    with io.StringIO() as gone:
        monkeypatch.setattr("sys.stderr", gone)
        log_to_stderr("mmalign")
        package.info("first")
        assert gone.getvalue() == "first\n"
    now = io.StringIO()
    monkeypatch.setattr("sys.stderr", now)
    package.info("second")
    assert now.getvalue() == "second\n"

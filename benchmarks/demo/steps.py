"""Runs the demo's commands as a user would type them: each is shown, timed, and stops the demo when it fails."""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console


class DemoError(Exception):
    """The demo cannot go on; the message says what was seen and what to do."""


class Step(msgspec.Struct, frozen=True):
    """A step that was run: what it is for, the line a user would type, and how long it took."""

    title: str
    command: str
    seconds: float


class Stage:
    """Runs steps one after the other, numbered, and remembers them."""

    def __init__(self, console: Console, num_steps: int) -> None:
        self.steps: list[Step] = []
        self._console = console
        self._num_steps = num_steps
        self._mmalign = Path(sys.executable).with_name("mmalign")
        if not self._mmalign.is_file():
            raise DemoError(
                f"{self._mmalign} is not there: mmalign is not installed in this environment. Run `make demo`."
            )

    def run(self, title: str, *arguments: str | Path | int, to_file: Path | None = None) -> None:
        """Run `mmalign` with these arguments, its output to the terminal or to a file. Raises DemoError."""
        words = ["mmalign", *map(str, arguments)]
        command = shlex.join(words) + (f" > {shlex.quote(str(to_file))}" if to_file else "")
        self._announce(title, command)
        started = time.perf_counter()
        exit_code = self._call([str(self._mmalign), *words[1:]], to_file)
        seconds = time.perf_counter() - started
        if exit_code:
            number = len(self.steps) + 1
            raise DemoError(f"step {number}, {title.lower()}, ended with exit code {exit_code}: {command}")
        self.steps.append(Step(title, command, seconds))
        self._console.print(f"[green]done[/] in {seconds:.1f} s")

    def _announce(self, title: str, command: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{len(self.steps) + 1}/{self._num_steps}  {title}[/]", align="left", style="dim")
        self._console.print(f"[cyan]$ {command}[/]", soft_wrap=True, highlight=False, emoji=False)

    def _call(self, words: Sequence[str], to_file: Path | None) -> int:
        # stdout and stderr are handed on, not read: a command shows its bars and colours only to a terminal.
        if to_file is None:
            return subprocess.run(words, check=False).returncode
        with to_file.open("wb") as file:
            return subprocess.run(words, stdout=file, check=False).returncode

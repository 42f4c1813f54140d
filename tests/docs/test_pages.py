"""What the pages show is so: their Python and their commands run, the messages they quote are the code's."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from docs.gen.cli_page import verbs
from docs.gen.reference import DOCS

ROOT = DOCS.parent
_TINY = ROOT / "tests/runtime/fixtures/tiny_bundle"
_PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.glob("*.md") if path.name != "CHANGELOG.md")]
_BLOCK = re.compile(r"(?:<!-- (?P<note>run|not run: .+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
_CODE = ("mmalign", "runtime/mmalign_runtime", "export/mmalign_export")


class Block:
    """A block of code on a page."""

    def __init__(self, page: Path, found: re.Match[str]) -> None:
        self.note, self.language, self.code = found["note"], found["language"], found["code"]
        self.line = page.read_text(encoding="utf-8")[: found.start("code")].count("\n") + 1
        self.name = f"{page.name}:{self.line}"
        self.is_readme = page.name == "README.md"


def blocks(language: str) -> Iterator[Block]:
    for page in _PAGES:
        found = (Block(page, each) for each in _BLOCK.finditer(page.read_text(encoding="utf-8")))
        yield from (block for block in found if block.language == language)


def commands(code: str) -> Iterator[list[str]]:
    for line in code.splitlines():
        if line.startswith("mmalign "):
            yield shlex.split(line, comments=True)[1:]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that has what the pages speak of: a bundle, photos, and their vectors."""
    shutil.copytree(_TINY, tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for name in ("grey.jpg", "WebP.webp", "RGBA.png", "progressive.jpg"):
        shutil.copy(_TINY / "golden" / name, tmp_path / "photos")
    (tmp_path / "captions.txt").write_text("a portrait\na dog on a beach\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mmalign(*arguments: str) -> None:
    command = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


_PYTHON = [block for block in blocks("python") if not (block.note or "").startswith("not run") and not block.is_readme]


@pytest.mark.parametrize("block", _PYTHON, ids=lambda block: block.name)
def test_the_python_of_a_page_runs(place: Path, block: Block) -> None:
    if "photos.npz" in block.code:
        mmalign("embed", "bundle", "photos", "--out", "photos.npz")
    if '"vectors"' in block.code:
        mmalign("embed", "bundle", "photos", "--out", "vectors")
    exec(compile(block.code, block.name, "exec"), {})


def test_most_of_the_python_runs() -> None:
    assert len(_PYTHON) >= 7


_RUN = [block for block in blocks("bash") if block.note == "run"]


@pytest.mark.parametrize("block", _RUN, ids=lambda block: block.name)
def test_the_commands_of_a_page_run(place: Path, block: Block) -> None:
    for arguments in commands(block.code):
        mmalign(*arguments)


def test_every_command_has_the_options_that_pages_give_it() -> None:
    known, num_commands = verbs(), 0
    for block in blocks("bash"):
        for verb, *arguments in commands(block.code):
            try:
                known[verb].make_context(verb, list(arguments))
            except typer.BadParameter as error:  # pragma: no cover - only where a page is wrong
                pytest.fail(f"{block.name}: mmalign {verb} {arguments}: {error}")
            num_commands += 1
    assert num_commands >= 25


def messages() -> list[str]:
    """Return every text of the three distributions, with … for what is put into it."""
    found = []
    for folder in _CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_troubleshooting_quotes_messages_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(?:…[^ ]* )?(.+?)`$", page, re.MULTILINE)
    headings = [heading.rstrip("`") for heading in headings]
    known = messages()
    assert len(headings) >= 25
    for heading in headings:
        pattern = ".*".join(re.escape(part) for part in heading.split("…"))
        assert any(re.search(pattern, message, re.DOTALL) for message in known), heading


def test_contributing_names_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w/]+/\w+\.py)`", text) if "NAME" not in name}
    assert len(named) >= 15
    roots = (ROOT, *(ROOT / folder for folder in _CODE))
    assert [name for name in sorted(named) if not any((root / name).exists() for root in roots)] == []


def test_contributing_maps_rooms_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add")[0]
    for package, folder in zip(
        ("mmalign_runtime", "mmalign", "mmalign_export"), (_CODE[1], _CODE[0], _CODE[2]), strict=True
    ):
        table = text.partition(f"| `{package}` | rooms, in order |")[2].partition("\n\n")[0]
        rooms = re.findall(r"`([a-z_]+)`", table)
        assert rooms
        assert [room for room in rooms if not list((ROOT / folder).rglob(f"{room}*"))] == []


@pytest.mark.parametrize("word", ["door", "turnstile", "company", "batch-mates", "take turns", "taking turns", "heats"])
def test_pages_use_the_terms_of_the_field(word: str) -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        assert not re.search(rf"\b{word}\b", page.read_text(encoding="utf-8"), re.IGNORECASE), page.name

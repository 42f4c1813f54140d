from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mmalign_runtime.cli.verbs import ELSEWHERE, ENTRY_POINT_GROUP, load_verbs
from mmalign_runtime.errors import MissingDependencyError

PLUGIN = """
def register(app):
    @app.command()
    def train(run: str) -> None:
        print("training", run)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    (tmp_path / "plugin_with_train.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return EntryPoint("mmalign", "plugin_with_train:register", ENTRY_POINT_GROUP)


@pytest.fixture
def app() -> typer.Typer:
    empty = typer.Typer(add_completion=False)
    empty.callback()(lambda: None)
    return empty


def test_a_verb_whose_distribution_is_missing_names_it(app: typer.Typer) -> None:
    load_verbs(app, found=[])
    for verb, needed in (("train", "mmalign"), ("export", "mmalign-export"), ("quantize", "mmalign-export")):
        result = CliRunner().invoke(app, [verb, "run", "--epochs", "3", "--help"])
        assert isinstance(result.exception, MissingDependencyError)
        install = f"pip install '{needed}[cpu]'"
        message = f"mmalign {verb} needs the {needed} distribution: {install}, or from a clone pip install '.[cpu]'"
        assert str(result.exception).startswith(message)


def test_an_entry_point_adds_its_verbs_and_keeps_the_other_stand_ins(app: typer.Typer, plugin: EntryPoint) -> None:
    load_verbs(app, found=[plugin])
    assert CliRunner().invoke(app, ["train", "first"]).output == "training first\n"
    assert isinstance(CliRunner().invoke(app, ["export"]).exception, MissingDependencyError)


def test_a_distribution_that_does_not_load_says_why_when_its_verb_is_called(app: typer.Typer) -> None:
    load_verbs(app, found=[EntryPoint("mmalign", "no_such_module:register", ENTRY_POINT_GROUP)])
    error = CliRunner().invoke(app, ["train"]).exception
    assert isinstance(error, MissingDependencyError)
    assert "which does not load (No module named 'no_such_module')" in str(error)
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_loading_twice_adds_nothing_twice(app: typer.Typer, plugin: EntryPoint) -> None:
    load_verbs(app, found=[plugin])
    num_commands = len(app.registered_commands)
    load_verbs(app, found=[plugin])
    assert len(app.registered_commands) == num_commands == len(ELSEWHERE)


def test_another_command_line_gets_them_too(app: typer.Typer, plugin: EntryPoint) -> None:
    load_verbs(typer.Typer(), found=[plugin])
    load_verbs(app, found=[plugin])
    assert CliRunner().invoke(app, ["train", "first"]).output == "training first\n"

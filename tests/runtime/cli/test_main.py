import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmalign_runtime.cli import app, main

VERBS = ("info", "verify", "embed", "search", "bench")


def test_help_lists_every_verb_present_or_not(cli) -> None:
    result = cli("--help")
    assert result.code == 0
    assert all(verb in result.out for verb in (*VERBS, "train", "evaluate", "export"))


def test_a_command_line_that_is_called_again_has_each_verb_once(cli) -> None:
    for _ in range(2):
        assert cli("--version").code == 0
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert sorted(verbs) == sorted(set(verbs))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_page(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert f"mmalign {verb}" in result.output


def test_the_version_is_printed(cli) -> None:
    assert cli("--version").out.startswith("mmalign 0.")


def test_an_error_is_one_line_on_stderr_and_exit_code_2(cli, tmp_path: Path) -> None:
    result = cli("info", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {tmp_path} is not a bundle")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("info", ""), "BUNDLE"),
        (("embed", "bundle", "", "--out", "a.npz"), "INPUT"),
        (("search", "bundle", "", "dog"), "VECTORS"),
        (("search", "--json", "bundle", "", "dog"), "VECTORS"),
        (("search", "--top-k", "5", "", "vectors", "dog"), "BUNDLE"),
        (("search", "bundle", "vectors", "dog", "--rerank", "20", "--images", ""), "--images"),
        (("search", "bundle", "vectors", "dog", "--images="), "--images"),
        (("upgrade", "a", "--out", ""), "--out"),
    ],
)
def test_an_empty_path_is_not_the_working_directory(cli, words: tuple[str, ...], name: str) -> None:
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"error: {name} is empty, as an unset variable of the shell is. Give a path.\n"


def test_an_empty_text_is_searched_for(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "photos.npz"
    assert cli("embed", tiny_bundle, tiny_bundle / "golden", "--out", vectors).code == 0
    assert cli("search", tiny_bundle, vectors, "").code == 0


def test_an_interrupt_exits_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(app: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmalign_runtime.cli.load_verbs", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main([])


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["info", "missing"], 2), (["info"], 2), (["no-such-verb"], 2)]
)
def test_exit_codes_of_a_process(words: list[str], code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()", *words]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == code


def test_help_loads_neither_onnxruntime_nor_torch(tmp_path: Path) -> None:
    code = """
import sys
from mmalign_runtime.cli import main
try:
    main(["--help"])
except SystemExit:
    print("loaded:", *{"onnxruntime", "torch", "transformers"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("loaded:")

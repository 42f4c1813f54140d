"""What goes wrong every day, through the command line: one line on stderr that names the item and says what to do, exit
code 2, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from mmalign_runtime.cli import app, main
from mmalign_runtime.cli.verbs import load_verbs

FIXTURE = Path(__file__).parent / "runtime/fixtures/tiny_bundle"
PHOTO = FIXTURE / "golden/landscape_3x2.jpg"
CANNOT_RUN = 2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(PHOTO, folder / "good.jpg")
    return folder


def error_of(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    assert stop.value.code == CANNOT_RUN
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("error: ") :]


@pytest.mark.parametrize(
    ("name", "content", "seen", "fix"),
    [
        ("cut.jpg", PHOTO.read_bytes()[:9000], "truncated", "replace it"),
        ("text.jpg", b"this is not an image", "not an image in a format", "convert it"),
        ("empty.jpg", b"", "the file is empty", "Replace it"),
    ],
)
def test_a_bad_image_is_named_and_nothing_is_written(
    photos: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, seen: str, fix: str
) -> None:
    (photos / name).write_bytes(content)
    out = photos.parent / "vectors.npz"
    error = error_of(capsys, "embed", FIXTURE, photos, "--out", out, "--on-error", "raise")
    assert name in error
    assert seen in error
    assert fix in error
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


def write_config(folder: Path, table: str, **tower: str) -> Path:
    (folder / "pairs.csv").write_text(table)
    shutil.copy(PHOTO, folder / "good.jpg")
    settings = "".join(f'{key} = "{value}"\n' for key, value in tower.items())
    (folder / "config.toml").write_text(f"[[data.sources]]\npath = '{folder / 'pairs.csv'}'\n[text_tower]\n{settings}")
    return folder / "config.toml"


@pytest.mark.parametrize(
    ("table", "seen", "fix"),
    [
        ("image,caption\ngood.jpg,a photo\ngood.jpg,   \n", "pairs.csv, line 3", 'on_error = "skip"'),
        ("image,text\ngood.jpg,a photo\n", "caption", "text"),
        ("image,caption\nmissing.jpg,a photo\n", "missing.jpg", "pairs.csv, line 2"),
    ],
    ids=["empty caption", "wrong column", "missing image"],
)
def test_a_bad_row_or_column_is_named_before_training_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, seen: str, fix: str
) -> None:
    config = write_config(tmp_path, table)
    error = error_of(capsys, "train", config, "--out", tmp_path / "run")
    assert seen in error
    assert fix in error
    assert not (tmp_path / "run").exists()


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number in range(40):  # images of their own: bytes behind the end of a JPEG change no pixel
        (tmp_path / f"{number}.jpg").write_bytes(PHOTO.read_bytes() + b"%d" % number)
    rows = "".join(f"{number}.jpg,photo {number},{number}\n" for number in range(40))
    config = write_config(tmp_path, f"image,caption,concept\n{rows}", name="no-such/encoder")
    settings = ["--set", "image_tower.weights=random", "--set", "data.split.val=0.4"]
    settings += ["--set", f"data.sources=[{{path='{tmp_path / 'pairs.csv'}', concept_column='concept'}}]"]
    error = error_of(capsys, "train", config, "--out", tmp_path / "run", *settings)
    assert "no-such/encoder" in error
    assert 'text_tower.weights = "random"' in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["onnx/text_model.onnx", "tokenizer.json", "golden/cases.json", "README.md"])
def test_an_edited_bundle_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(FIXTURE, bundle)
    with (bundle / name).open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    error = error_of(capsys, "verify", bundle)
    assert name in error
    assert "was changed" in error
    assert "Copy the bundle again" in error


def _verbs() -> dict[str, Any]:
    load_verbs(app)
    return dict(typer.main.get_command(app).commands)


def _options() -> list[tuple[str, str]]:
    """Return each verb with each of its options that takes a value, of all three distributions."""
    options = [(verb, each) for verb, command in _verbs().items() for each in command.params if each.nargs == 1]
    return [(verb, each.opts[0]) for verb, each in options if each.param_type_name == "option" and not each.is_flag]


@pytest.mark.parametrize(("verb", "option"), _options())
def test_a_word_that_does_not_fit_an_option_is_one_line(
    verb: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = _verbs()[verb].params
    needed = [each for each in parameters if each.required and each.opts[0] != option]
    words = [word for each in needed for word in ([each.opts[0], "not-here"][each.param_type_name == "argument" :])]
    error = error_of(capsys, verb, *words, option, "x!")
    assert error.count("\n") == 1
    kind = next(each.type_descriptor.annotation for each in parameters if each.opts[0] == option)
    if kind not in (str, Path, list[str]):
        assert error.startswith(f"error: {option} 'x!': ")
        assert error.endswith(f". See `mmalign {verb} --help`.\n")
    assert list(tmp_path.iterdir()) == []


def _repeatable() -> list[tuple[str, str]]:
    """Return each verb with each of its options that may be given several times and takes a number."""
    numbers = (list[int], list[float])
    return [
        (verb, each.opts[0])
        for verb, command in _verbs().items()
        for each in command.params
        if each.param_type_name == "option" and each.multiple and each.type_descriptor.annotation in numbers
    ]


@pytest.mark.parametrize(("words", "wrong"), [("1 x!", "x!"), ("x! 1", "x!"), ("1 x! 0", "x!"), ("1 0 3", "0")])
@pytest.mark.parametrize(("verb", "option"), _repeatable())
def test_of_an_option_given_several_times_the_word_that_does_not_fit_is_shown_alone(
    verb: str, option: str, words: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for each in words.split() for word in (option, each)]
    assert error_of(capsys, verb, "not-here", *given).startswith(f"error: {option} {wrong!r}: input should be ")


def test_of_an_option_that_takes_one_word_the_last_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "import", "model", "--out", "bundle", "--dim", "1", "--dim", "x!")
    assert error.startswith("error: --dim 'x!': input should be ")


@pytest.mark.parametrize("verb", list(_verbs()))
@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("--no-such-option",), "no such option: --no-such-option"),
        (("--json=3",), "'--json' does not take a value"),
        ((), " is missing"),
    ],
)
def test_a_command_line_that_does_not_fit_is_one_line(
    verb: str, words: tuple[str, ...], seen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(capsys, verb, *words)
    assert error.count("\n") == 1
    has_json = any(each.opts[0] == "--json" and each.is_flag for each in _verbs()[verb].params[1:])
    assert (seen if has_json or "json" not in seen else "") in error
    assert error.endswith(f". See `mmalign {verb} --help`.\n")


def test_a_verb_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "improt", "model")
    assert error == "error: no such command 'improt'. Did you mean 'import'? See `mmalign --help`.\n"

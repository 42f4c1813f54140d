from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign_export.errors import ExportError, SourceError
from mmalign_export.importing import read_import
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.detect import detect_source
from mmalign_runtime.cli import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("open_clip:ViT-B-32", ("open_clip", "ViT-B-32")),
        ("local-dir:models/clip", ("open_clip", "local-dir:models/clip")),
        ("sentence-transformers:clip-ViT-B-32", ("sentence_transformers", "clip-ViT-B-32")),
        ("onnx:models/pair", ("onnx_pair", "models/pair")),
        ("openai/clip-vit-base-patch32", ("transformers", "openai/clip-vit-base-patch32")),
    ],
)
def test_a_name_says_its_kind(place: str, kind: tuple[str, str]) -> None:
    assert detect_source(place) == kind


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("config.toml",), "run"),
        (("modules.json", "config.json", "model.safetensors"), "sentence_transformers"),
        (("open_clip_config.json", "config.json", "open_clip_model.safetensors"), "open_clip"),
        (("config.json", "model.safetensors", "onnx/text_model.onnx", "onnx/vision_model.onnx"), "transformers"),
        (("config.json", "onnx/text_model.onnx", "onnx/vision_model.onnx"), "onnx_pair"),
        (("visual/model.onnx", "textual/model.onnx"), "onnx_pair"),
    ],
)
def test_a_folder_s_files_say_its_kind(files: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert detect_source(str(tmp_path)) == (kind, str(tmp_path))


def test_a_file_of_weights_is_told_from_another(tmp_path: Path) -> None:
    for name in ("ViT-B-32.pt", "notes.pdf"):
        (tmp_path / name).write_text("")
    assert detect_source(str(tmp_path / "ViT-B-32.pt"))[0] == "openai"
    with pytest.raises(ExportError, match=r"file of kind '\.pdf'; expected weights"):
        detect_source(str(tmp_path / "notes.pdf"))


@pytest.mark.parametrize("kind", [None, "onnx_pair", "transformers"])
def test_a_bundle_is_no_source(kind: str | None, tmp_path: Path) -> None:
    """Its towers would be taken for a pair of ONNX files, and its scale for CLIP's."""
    for name in ("bundle.json", "config.json", "onnx/text_model.onnx", "onnx/vision_model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "packed.mmalign").write_text("")
    for place in (tmp_path, tmp_path / "packed.mmalign"):
        with pytest.raises(SourceError, match="is a bundle already, which needs no import"):
            read_import(place, kind)


def test_an_option_that_the_source_does_not_read_is_refused(saved: Callable[[str], Path]) -> None:
    with pytest.raises(SourceError, match=r"kind 'transformers' does not read dim, model; it reads alpha, "):
        read_source("transformers", saved("clip"), SourceOptions(dim=8, model="ViT-B-32"))


def test_explain_prints_every_choice_and_writes_nothing(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    _, shown, _ = _run(capsys, "import", saved("clip"), "--out", out, "--explain", "--length", "fixed")
    assert "fixed, up to 24 tokens  (tokenizer and config.json, --length fixed)" in shown
    _, raw, _ = _run(capsys, "import", saved("clip"), "--out", out, "--explain", "--json")
    assert {"architecture", "picture", "texts", "similarity"} <= {choice["what"] for choice in json.loads(raw)}
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = _run(capsys, "import", tmp_path / "nothing", "--out", tmp_path / "bundle")
    assert code == 2
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1


def test_an_empty_source_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = _run(capsys, "import", "", "--out", tmp_path / "bundle")
    assert (code, out) == (2, "")
    assert err == "error: SOURCE is empty, as an unset variable of the shell is. Give a path.\n"

"""Every family once through `mmalign import` and `mmalign verify`, as a user types them.

    python -m benchmarks.imports.command_line [--only TEXT] > benchmarks/imports/results/command_line.jsonl

The tests' tiny models, all golden cases, nothing left out. The tests of the sources call `import_model` with a few of
the pictures, since a family takes half a minute so. One line of JSON a family: its command, what the two verbs exited
with, and what they say. The exit code is 1 where one of them failed.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import open_clip
import torch
from typer import Option

from benchmarks.harness.command import run
from mmalign_runtime.cli import main as mmalign
from tests.export.sources import clips, tiny
from tests.export.sources.onnx_pairs import save_immich, save_transformers_js, save_two_folders
from tests.export.sources.sentences import save_clip, save_words

# What is given to `mmalign import`, without --out; made in a folder of its own.
Arguments = Sequence[object]
_TINY = "tiny-quickgelu"  # a configuration that open_clip is told of


def _weights(folder: Path, prefix: str, held: Mapping[str, object]) -> Arguments:
    """Save a state dict, alone or beside what a training's checkpoint has."""
    state = {f"{prefix}{name}": each for name, each in clips.build(_open_clip_knows(folder)).state_dict().items()}
    torch.save({**held, "state_dict": state} if held else state, folder / "weights.pt")
    return [folder / "weights.pt", "--model", _TINY]


def _torchscript(folder: Path) -> Arguments:
    return [clips.save_torchscript(clips.build(_open_clip_knows(folder)), folder / "weights.pt"), "--model", _TINY]


def _open_clip_knows(folder: Path) -> dict[str, object]:
    config = {**clips.CLIP, "quick_gelu": True}
    (folder / "configs").mkdir()
    (folder / f"configs/{_TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "configs")
    return config


def _saved(folder: Path, family: str = "clip") -> Path:
    return tiny.save_tiny(family, folder / "saved")


def _two_folders(folder: Path) -> Arguments:
    images, texts = save_two_folders(_saved(folder), folder / "two")
    return [images, "--text", texts]


_SOURCES: dict[str, Callable[[Path], Arguments]] = {
    **{f"transformers: {name}": lambda to, name=name: [_saved(to, name)] for name in tiny.FAMILIES},
    **{f"open_clip: {name}": lambda to, name=name: [clips.write(to / "model", name)] for name in clips.FAMILIES},
    "weights: OpenAI's archive": _torchscript,
    "weights: state dict": lambda to: _weights(to, "", {}),
    "weights: checkpoint of training": lambda to: _weights(to, "module.", {"epoch": 3}),
    "sentence-transformers: CLIP": lambda to: [save_clip(_saved(to), to / "clip")],
    "sentence-transformers: --text": lambda to: [
        save_clip(_saved(to), to / "clip"),
        "--text",
        save_words(to / "words"),
    ],
    "ONNX: transformers.js": lambda to: [save_transformers_js(_saved(to), to / "pair")],
    "ONNX: transformers.js, SigLIP": lambda to: [
        save_transformers_js(_saved(to, "siglip2"), to / "pair", "pooler_output")
    ],
    "ONNX: immich": lambda to: [save_immich(_saved(to), to / "pair")],
    "ONNX: fastembed, Qdrant": _two_folders,
}


def _run(*arguments: object) -> tuple[int, str]:
    """Return what a command exited with and what it printed."""
    shown, code = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), 0
    with contextlib.redirect_stdout(shown):
        try:
            mmalign([str(each) for each in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    shown.seek(0)
    return code, shown.read()


def measure(name: str, make: Callable[[Path], Arguments], folder: Path) -> dict[str, object]:
    """Import and verify one family; return what the two commands said."""
    given, bundle = make(folder), folder / "bundle"
    started = time.perf_counter()
    imported, said = _run("import", *given, "--out", bundle, "--json")
    seconds = time.perf_counter() - started
    verified, _ = _run("verify", bundle) if imported == 0 else (None, "")
    record = json.loads(said)["imported"] if imported == 0 else None
    options = [str(each).replace(str(folder), "FOLDER") for each in given]
    found: dict[str, object] = {"source": name, "command": " ".join(["mmalign import", *options, "--out bundle"])}
    found |= {"import_exit": imported, "verify_exit": verified, "import_s": round(seconds, 1)}
    if record is not None:
        cosines = [stage["lowest_cosine"] for stage in record["stages"] if stage["stage"] == "file to vector"]
        found |= {"reference": record["reference"], "lowest_cosine_image_text": cosines}
    return found


def main(only: Annotated[str, Option(help="sources whose name has this in it")] = "") -> None:
    failed = 0
    for name, make in _SOURCES.items():
        if only in name:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(name, make, Path(folder))
            failed += found["import_exit"] != 0 or found["verify_exit"] != 0
            print(json.dumps(found), flush=True)
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    run(main)

"""Every family once through `mmalign import` and `mmalign verify`, as a user types them.

    python -m benchmarks.imports.command_line [--only TEXT] > benchmarks/imports/results/command_line.jsonl

The tests' tiny models, all golden cases, nothing left out. The tests of the sources call `import_model` with a few of
the pictures, since a family takes half a minute so. One line of JSON a family: its command, what the two verbs exited
with, and what they say. The exit code is 1 where one of them failed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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


def _transformers(family: str, folder: Path) -> Arguments:
    return [tiny.save_tiny(family, folder / "model")]


def _open_clip(family: str, folder: Path) -> Arguments:
    return [clips.write(folder / "model", family)]


def _weights(folder: Path, *, is_checkpoint: bool) -> Arguments:
    state = clips.build(_open_clip_knows(folder)).state_dict()
    if is_checkpoint:
        held: dict[str, object] = {"epoch": 3, "state_dict": {f"module.{name}": each for name, each in state.items()}}
    else:
        held = dict(state)
    torch.save(held, folder / "weights.pt")
    return [folder / "weights.pt", "--model", _TINY]


def _torchscript(folder: Path) -> Arguments:
    return [clips.save_torchscript(clips.build(_open_clip_knows(folder)), folder / "weights.pt"), "--model", _TINY]


def _open_clip_knows(folder: Path) -> dict[str, object]:
    config = {**clips.CLIP, "quick_gelu": True}
    (folder / "configs").mkdir()
    (folder / f"configs/{_TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "configs")
    return config


def _clip(folder: Path) -> Path:
    return tiny.save_tiny("clip", folder / "saved")


def _sentences(folder: Path) -> Arguments:
    return [save_clip(_clip(folder), folder / "clip")]


def _sentences_with_words(folder: Path) -> Arguments:
    return [*_sentences(folder), "--text", save_words(folder / "words")]


def _transformers_js(folder: Path) -> Arguments:
    return [save_transformers_js(_clip(folder), folder / "pair")]


def _transformers_js_siglip(folder: Path) -> Arguments:
    return [save_transformers_js(tiny.save_tiny("siglip2", folder / "saved"), folder / "pair", "pooler_output")]


def _immich(folder: Path) -> Arguments:
    return [save_immich(_clip(folder), folder / "pair")]


def _two_folders(folder: Path) -> Arguments:
    images, texts = save_two_folders(_clip(folder), folder / "two")
    return [images, "--text", texts]


def _sources() -> Iterator[tuple[str, Callable[[Path], Arguments]]]:
    for family in tiny.FAMILIES:
        yield f"transformers: {family}", partial(_transformers, family)
    for family in clips.FAMILIES:
        yield f"open_clip: {family}", partial(_open_clip, family)
    yield "weights: OpenAI's archive", _torchscript
    yield "weights: state dict", partial(_weights, is_checkpoint=False)
    yield "weights: checkpoint of training", partial(_weights, is_checkpoint=True)
    yield "sentence-transformers: CLIP", _sentences
    yield "sentence-transformers: --text", _sentences_with_words
    yield "ONNX: transformers.js", _transformers_js
    yield "ONNX: transformers.js, SigLIP", _transformers_js_siglip
    yield "ONNX: immich", _immich
    yield "ONNX: fastembed, Qdrant", _two_folders


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
    """Print a line for each family; exit with 1 where one failed."""
    failed = 0
    for name, make in _sources():
        if only in name:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(name, make, Path(folder))
            failed += found["import_exit"] != 0 or found["verify_exit"] != 0
            print(json.dumps(found), flush=True)
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    run(main)

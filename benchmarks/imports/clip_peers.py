"""CLIP ViT-B/32 from file to vector: the imported bundle, sentence-transformers and fastembed, in turns, in one run.

    python -m benchmarks.imports.clip_peers WORK [--seconds 30] [--int8 BUNDLE]

One set of random weights of the real size and CLIP's own vocabulary, in the three shapes that the tools take: the
folder that transformers saves (sentence-transformers), and its towers as ONNX files that take any number of tokens, as
the published ones do (fastembed, where `make against-setup` installed it). Each tool works as it does without options,
with the same number of threads, on the same JPEG files and captions; parity is checked before anything is timed. The
last line is JSON.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import transformers
from sentence_transformers import SentenceTransformer
from typer import Option

from benchmarks.against.entries import Entry
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Kind, Measure, ModelFiles, Setting
from benchmarks.harness.command import run
from benchmarks.harness.places import FASTEMBED_PYTHON
from benchmarks.harness.timing import Vectors, Way
from benchmarks.imports.clip_speed import LEAST_INT8, captions, compare, jpegs, load_ours, ways_of_ours
from mmalign_export import import_model
from mmalign_runtime.engine.threads import available_threads
from tests.export.sources.onnx_pairs import save_two_folders
from tests.export.sources.sentences import save_clip
from tests.export.sources.tiny import spread_out

SIZES: dict[Kind, tuple[int, ...]] = {"image": (1, 32), "text": (1, 32)}
_FASTEMBED = Entry("fastembed", "fastembed", "fastembed", {})


def save_saved(folder: Path) -> None:
    torch.manual_seed(0)
    words = open_clip.tokenizer.SimpleTokenizer()
    pieces = [*list(words.encoder)[:-2], "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={piece: at for at, piece in enumerate(pieces)}, merges=list(words.bpe_ranks), model_max_length=77
    )
    config = transformers.CLIPConfig()
    config.text_config.eos_token_id = tokenizer.eos_token_id
    model = transformers.CLIPModel(config)
    spread_out(model)
    for part in (model, tokenizer, transformers.CLIPImageProcessor()):
        part.save_pretrained(folder)


def prepare(work: Path) -> None:
    """Make the model in each tool's shape, and the bundle, where they are not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "saved").exists():
        save_saved(work / "saved")
        save_clip((work / "saved").resolve(), work / "clip")
    if not (work / "onnx").exists():
        save_two_folders(work / "saved", work / "onnx")
        transformers.CLIPTextConfig.from_pretrained(work / "saved").save_pretrained(work / "onnx/clip-text")
    if not (work / "clip.bundle").exists():
        import_model(work / "clip", work / "clip.bundle")


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(
    work: Path,
    seconds: Annotated[float, Option(help="for each of the four comparisons")] = 30.0,
    int8: Annotated[Path | None, Option(help="the bundle quantized, so that its int8 takes part")] = None,
) -> None:
    prepare(work)
    threads = available_threads()
    torch.set_num_threads(threads)
    ours = load_ours(work / "clip.bundle", int8)
    sentences = SentenceTransformer(str(work / "clip"), device="cpu")
    paths = [work / f"{number}.jpg" for number in range(max(SIZES["image"]))]
    for path, file in zip(paths, jpegs(len(paths)), strict=True):
        path.write_bytes(file)
    folders = (str((work / "onnx" / name).resolve()) for name in ("clip-vision", "clip-text"))
    with ExitStack() as stack:
        fastembed = None
        if FASTEMBED_PYTHON.is_file():
            files = ModelFiles("", "", *folders, is_clip=True)
            fastembed = stack.enter_context(PeerProcess(_FASTEMBED, FASTEMBED_PYTHON, files, threads, work / "log.txt"))

        def ways(kind: Kind, number: int) -> dict[str, Way]:
            items = [str(path) for path in paths[:number]] if kind == "image" else captions(number)
            found: dict[str, Way] = {
                "sentence-transformers": lambda: _unit(np.asarray(sentences.encode(items, show_progress_bar=False)))
            }
            if fastembed is not None:
                found["fastembed"] = lambda: _unit(fastembed.vectors(Measure(kind, tuple(items), Setting())))
            return found | ways_of_ours(ours, kind, items)

        compare(ways, SIZES, seconds, LEAST_INT8)


if __name__ == "__main__":
    run(main)

"""Time from the start of a process to its first vector, ours and fastembed's in turns, files warm in memory.

python -m benchmarks.against.cold_start --out benchmarks/against/results/cold-start-xeon.json
"""

import random
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import numpy as np
from typer import Option

from benchmarks.against.models import demo_source, prepare_files, reference_source
from benchmarks.against.protocol import Kind, ModelFiles
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import CACHE, FASTEMBED_PYTHON, PHOTO, ROOT
from benchmarks.harness.processes import first_line_s
from benchmarks.harness.timing import Spread, interleaved, paired_speedups, spread

NUM_TURNS = 11
ONE: dict[Kind, str] = {"image": str(PHOTO), "text": "a photograph of a red bicycle against a wall"}

OURS, CACHED, FASTEMBED = "mmalign", "mmalign, cache=True", "fastembed"
# What each one's documentation shows first, with one tower loaded, the thread count left to it, and nothing more.
OUR_START = """
import sys
from mmalign_runtime import Embedder
embedder = Embedder.load(sys.argv[1], towers=("{kind}",), cache={cache})
print(embedder.encode_{kind}([sys.argv[2]]).shape, flush=True)
"""
_FASTEMBED = {
    "image": """
import sys
from fastembed import ImageEmbedding
model = ImageEmbedding("Qdrant/resnet50-onnx", specific_model_path=sys.argv[1])
print(next(iter(model.embed([sys.argv[2]]))).shape, flush=True)
""",
    "text": """
import sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model(
    model="mmalign/text", pooling=PoolingType.DISABLED, normalization=False,
    sources=ModelSource(hf="mmalign/text"), dim=256, model_file="model.onnx",
)
model = TextEmbedding("mmalign/text", specific_model_path=sys.argv[1])
print(next(iter(model.embed([sys.argv[2]]))).shape, flush=True)
""",
}


class ColdStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds to the first vector by who was started; position i of all lists is the same turn."""

    model: str
    kind: Kind
    seconds: dict[str, tuple[float, ...]]

    def ratio(self, ours: str) -> Spread:
        """Return how many times as long fastembed takes as one of ours, pair by pair."""
        return spread(paired_speedups(self.seconds[FASTEMBED], self.seconds[ours]))


def measure(model: str, files: ModelFiles, fastembed_python: Path, kind: Kind, num_turns: int) -> ColdStart:
    """Start the processes in turns, once untimed: what is kept between starts is kept then."""
    item = ONE[kind]
    folder = files.fastembed_image if kind == "image" else files.fastembed_text
    commands: dict[str, list[str]] = {
        name: [sys.executable, "-c", OUR_START.format(kind=kind, cache=cache), files.bundle, item]
        for name, cache in ((OURS, False), (CACHED, True))
    }
    commands[FASTEMBED] = [str(fastembed_python), "-c", _FASTEMBED[kind], folder, item]
    starts = {name: partial(first_line_s, command) for name, command in commands.items()}
    seconds = interleaved(starts, num_turns, random.Random(0), num_untimed=1)
    return ColdStart(model, kind, {name: tuple(round(lap, 4) for lap in laps) for name, laps in seconds.items()})


def main(
    out: Annotated[Path, Option(help="the JSON file that gets the results")],
    cache: Annotated[Path, Option(help="folder for exports")] = CACHE,
    demo: Annotated[Path, Option(help="what `make demo` left")] = ROOT / "demo",
    reference: Annotated[Path | None, Option(help="a bundle of the reference architecture, timed as well")] = None,
    fastembed_python: Annotated[Path, Option(help="fastembed's interpreter")] = FASTEMBED_PYTHON,
    turns: Annotated[int, Option(help="starts of each side")] = NUM_TURNS,
) -> None:
    watch, cases = Watch(), []
    for source in (demo_source(demo), *([reference_source(reference, cache)] if reference else [])):
        files = prepare_files(source, cache)
        for kind in get_args(Kind):
            found = measure(source.name, files, fastembed_python, kind, turns)
            medians = ", ".join(f"{name} {np.median(seconds):.2f} s" for name, seconds in found.seconds.items())
            print(f"{source.name} {kind}: {medians}", flush=True)
            cases.append(found)
    watch.write(out, cases=cases)


if __name__ == "__main__":
    run(main)

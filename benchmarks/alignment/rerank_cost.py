"""What a query costs with and without reranking its 20 nearest: images read anew, and images whose tokens are kept.

python -m benchmarks.alignment.rerank_cost BUNDLE FOLDER

BUNDLE has an attention, FOLDER images. The figures do not depend on what the model learned.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from typer import Option

from benchmarks.alignment.run import RESULTS
from benchmarks.harness.command import run
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.results import write_result
from mmalign_runtime import Embedder, SavedVectors, search
from mmalign_runtime.rerank import RegionReranker, images_in

QUERIES = ("a red boat", "a happy dog", "heart", "a flag", "rain", "two people", "a clock", "fruit", "a car", "music")
CANDIDATES = 20


class Cost(msgspec.Struct, frozen=True):
    """Medians of a query, from text to hits: by the vectors alone, with candidates computed, with all of them kept."""

    environment: Environment
    num_images: int
    num_candidates: int
    by_vectors_ms: float
    computed_ms: float
    kept_ms: float


def main(bundle: Path, folder: Path, results: Annotated[Path, Option(help="folder of the JSON")] = RESULTS) -> None:
    """Measure, print and write."""
    with Embedder.load(bundle, provider="cpu") as embedder:
        watch = Watch(embedder.info().num_threads)
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        vectors = embedder.encode_image([folder / name for name in names])
        saved = SavedVectors(tuple(names), vectors, embedder.space_id, embedder.info().variant_id)

        def ask(stage: RegionReranker | None) -> Callable[[str], object]:
            rerank = 0 if stage is None else CANDIDATES
            find = partial(search, saved=saved, top_k=10, space_id=saved.space_id, rerank=rerank, second_stage=stage)
            return lambda text: find(embedder.encode_text([text]))

        def stage(most_kept: int) -> RegionReranker:
            return RegionReranker(embedder.attention, images_in(folder), most_kept=most_kept)

        figures = [_median_ms(ask(each)) for each in (None, stage(1), stage(len(names)))]
        cost = Cost(watch.card(), len(names), CANDIDATES, *figures)
    write_result(cost, results / "rerank_cost.json")
    print(f"by vectors {figures[0]:.1f} ms, {CANDIDATES} computed {figures[1]:.1f} ms, kept {figures[2]:.1f} ms")


def _median_ms(ask: Callable[[str], object]) -> float:
    """Return the median of all queries, each once after a round that warms up."""
    for text in QUERIES:
        ask(text)
    taken = []
    for text in QUERIES * 3:
        started = time.perf_counter()
        ask(text)
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken))


if __name__ == "__main__":
    run(main)

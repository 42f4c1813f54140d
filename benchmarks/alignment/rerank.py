"""Reranks the nearest by the attention, on concepts that training never saw: recall@1 before and after, and its cost.

python -m benchmarks.alignment.rerank --out runs/rerank --seeds 3

The demo's run with `model.attention` on, some seeds. Towers are frozen, the regions of images cached. Shapes: N images,
M texts, D embedding.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor
from typer import Option

from benchmarks.alignment.run import CONFIG, RESULTS, ROOT
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from mmalign.config import load_config
from mmalign.features import ModelFeatures
from mmalign.features.region_features import RegionFeatures
from mmalign.figures.retrieval import Relevance
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.run import Run, load_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import SourcePairs, load_sources
from mmalign.training import train

BLOCK = 32  # texts whose scores against all images are held at a time


class Style(msgspec.Struct, frozen=True):
    """Recall@1 of one style, image to text and text to image: by the vectors, and with the nearest reranked."""

    style: str
    is_held_out: bool
    num_images: int
    by_vectors: tuple[float, float]
    reranked: tuple[float, float]


class Reranked(msgspec.Struct, frozen=True):
    """One seed: what the attention learned (its share of the score, its temperature), and the figures by style."""

    seed: int
    share: float
    temperature: float
    styles: tuple[Style, ...]

    def gain(self) -> float:
        """Return the points of recall@1 that reranking adds, the mean over styles and directions."""
        gains = [
            after - before for each in self.styles for before, after in zip(each.by_vectors, each.reranked, strict=True)
        ]
        return 100 * sum(gains) / len(gains)


def main(
    out: Annotated[Path, Option(help="where runs go")],
    seeds: int = 3,
    epochs: int = 150,
    candidates: int = 20,
    split: Literal["val", "test"] = "test",
    settings: Annotated[
        list[str] | None, Option("--set", help="a setting over the demo's; model.attention.weight=1")
    ] = None,
    results: Annotated[Path, Option(help="folder of the JSON")] = RESULTS,
) -> None:
    out, settings = out.resolve(), settings or ["model.attention.weight=1"]
    watch = Watch(torch.get_num_threads())
    os.chdir(ROOT)  # where the paths in demo.toml start
    found = []
    for seed in range(seeds):
        path = out / f"{seed}-{epochs}"
        further = [f"train.seed={seed}", f"train.epochs={epochs}", f"train.cache_dir={out / 'cache'}"]
        train(load_config(CONFIG, [*settings, *further]), path, resume=True)
        found.append(rerank_run(load_run(path), seed, candidates, split))
        print(f"seed {seed}: {found[-1].gain():+.1f} points of recall@1, share {found[-1].share:.2f}", flush=True)
        for style in found[-1].styles:
            print(f"  {style.style}: {style.by_vectors} -> {style.reranked}", flush=True)
    watch.write(results / "rerank.json", num_candidates=candidates, split=split, settings=settings, seeds=found)


def rerank_run(run: Run, seed: int, num_candidates: int, split: str) -> Reranked:
    """Return the figures of a run's best checkpoint on one side of the split."""
    attention = run.model.attention
    assert attention is not None
    config, device = run.config, torch.device("cpu")
    model = dual_model(run)
    features = ModelFeatures(model, Path(config.train.cache_dir), device, is_training=False)
    regions = RegionFeatures(model.image, Path(config.train.cache_dir), device)
    sources = load_sources(config.data, config.image, config.text)
    evaluated = [source for source in sources if source.is_evaluated]
    styles = tuple(_style(run, features, regions, source, num_candidates, split) for source in evaluated)
    return Reranked(seed, attention.share_logit.sigmoid().item(), attention.log_temperature.exp().item(), styles)


def _style(
    run: Run, features: ModelFeatures, regions: RegionFeatures, source: SourcePairs, num_candidates: int, split: str
) -> Style:
    items = build_retrieval_set(source.splits.test if split == "test" else source.splits.val, "first")
    model = run.model.eval()
    assert model.attention is not None
    with torch.inference_mode():
        images = model.project_image(features.images.of(items.pairs, source.name))  # (N, D)
        texts = model.project_text(features.texts.of(items.texts, source.name))  # (M, D)
        tokens = model.attention.tokens(regions.of(items.pairs, source.name)[:])  # (N, n, D)
        blocks = [model.attention(texts[at : at + BLOCK], images, tokens)[0] for at in range(0, len(texts), BLOCK)]
    cosines, scores = images @ texts.T, torch.cat(blocks).T  # (N, M)
    ways = ((cosines, scores, items.relevant), (cosines.T, scores.T, items.relevant.reversed()))
    before = [_recall_at_1(one, one, relevant, num_candidates) for one, _, relevant in ways]
    after = [_recall_at_1(one, other, relevant, num_candidates) for one, other, relevant in ways]
    return Style(source.name, source.is_held_out, len(images), (before[0], before[1]), (after[0], after[1]))


def _recall_at_1(cosines: Tensor, scores: Tensor, relevant: Relevance, num_candidates: int) -> float:
    """Return the share of queries whose best, by the scores, of the nearest, by the cosines, is right."""
    nearest = cosines.topk(min(num_candidates, cosines.shape[1]), dim=1).indices
    best = nearest.gather(1, scores.gather(1, nearest).argmax(dim=1, keepdim=True))[:, 0]
    right = [int(found) in relevant.right(query) for query, found in enumerate(best.tolist())]
    return sum(right) / len(right)


if __name__ == "__main__":
    run(main)

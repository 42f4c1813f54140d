"""A sheet of pictures that show where labels look, of drawings that training never saw, for somebody to judge.

python -m benchmarks.alignment.looks BUNDLE --out looks.png

Beside each drawing is the same with its heat, and its label below. With a bundle of the demo's run with an attention.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw

from mmalign.config import load_config
from mmalign.data import Pair
from mmalign.run.pairs import load_sources
from mmalign_runtime import Embedder
from mmalign_runtime.explain import explain

CONFIG = "benchmarks/demo/demo.toml"
SIDE, LINE, COLUMNS = 112, 16, 5  # pixels of a drawing and of its label; drawings in a row


def main() -> None:
    """Draw the sheet, and print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = load_config(CONFIG)
    pairs = [pair for source in load_sources(config.data, config.image) for pair in source.splits.test]
    chosen = random.Random(arguments.seed).sample(pairs, arguments.num)
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 2 * SIDE, rows * (SIDE + LINE)), "white")
    with Embedder.load(arguments.bundle) as embedder:
        for number, pair in enumerate(chosen):
            at = (number % COLUMNS * 2 * SIDE, number // COLUMNS * (SIDE + LINE))
            _draw(sheet, at, embedder, pair, number)
    sheet.save(arguments.out)


def _draw(sheet: Image.Image, at: tuple[int, int], embedder: Embedder, pair: Pair, number: int) -> None:
    found = explain(embedder, pair.image, pair.captions[0])
    for column, picture in enumerate((Image.fromarray(found.picture), found.draw())):
        sheet.paste(picture.resize((SIDE, SIDE)), (at[0] + column * SIDE, at[1]))
    ImageDraw.Draw(sheet).text((at[0] + 2, at[1] + SIDE), f"{number + 1}: {pair.captions[0][:34]}", "black")
    print(f"{number + 1}: {pair.captions[0]}, highest weight {found.weights.max():.2f}", flush=True)


if __name__ == "__main__":
    main()

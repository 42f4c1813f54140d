"""Memory and time of recall over many images and captions, both ways, each size in a process of its own:
python -m benchmarks.reliability ranks
"""

import threading
import time

import msgspec

from benchmarks.harness.processes import apart, resident_mb
from benchmarks.reliability.record import Found, Row

# The design's bound: more than the vectors themselves.
MOST_MORE_MB = 200
SIZES = ((12_000, 60_000), (100_000, 100_000))


class Size(msgspec.Struct, frozen=True):
    """N images, M captions; the most memory beside their vectors, and the time."""

    num_images: int
    num_texts: int
    more_mb: float
    seconds: float


def measure(num_images: int, num_texts: int) -> Size:
    """Take recall both ways of random vectors, and watch the memory of this process."""
    import torch
    from torch.nn import functional

    from mmalign.figures.retrieval import Relevance, recall_both_ways

    generator = torch.Generator().manual_seed(0)
    images, texts = (functional.normalize(torch.randn(n, 256, generator=generator)) for n in (num_images, num_texts))
    images[:256] @ texts[:1000].T  # what the library keeps for products is there now
    before, levels, is_done = resident_mb(), [resident_mb()], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.02):
            levels.append(resident_mb())

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    labels = [(image,) for image in range(num_images)], [(text * num_images // num_texts,) for text in range(num_texts)]
    recall_both_ways(images, texts, Relevance(*labels))
    seconds = time.perf_counter() - start
    is_done.set()
    return Size(num_images, num_texts, round(max(levels) - before, 1), round(seconds, 1))


def run(largest: int = max(map(max, SIZES))) -> Found:
    """Measure: the memory must not grow with the product. `largest` leaves out sizes with more images or captions."""
    sizes = tuple(apart(measure, *size) for size in SIZES if max(size) <= largest)
    rows = []
    for size in sizes:
        what = f"recall over {size.num_images:,} images and {size.num_texts:,} captions"
        measured = f"{size.more_mb:.0f} MB beside the vectors, {size.seconds:.0f} s"
        rows.append(Row(what, 1, int(size.more_mb <= MOST_MORE_MB), measured))
    return rows, {"sizes": sizes}

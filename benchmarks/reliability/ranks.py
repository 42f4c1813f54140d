"""Memory and time of recall over many images and captions, both ways, each size in a process of its own:
python -m benchmarks.reliability ranks
"""

from __future__ import annotations

import msgspec

from benchmarks.harness.processes import printed_numbers
from benchmarks.reliability.record import Row, record

# The design's bound: more than the vectors themselves.
MOST_MORE_MB = 200
SIZES = ((12_000, 60_000), (100_000, 100_000))

# Makes N images and M captions of N concepts, takes recall both ways, and prints the most memory held beside the
# vectors, in MB, and the seconds it took.
_PROCESS = """
import sys, threading, time
import torch
from benchmarks.harness.processes import resident_mb
from torch.nn import functional
from mmalign.figures.retrieval import Relevance, recall_both_ways

num_images, num_texts = map(int, sys.argv[1:])
generator = torch.Generator().manual_seed(0)
images, texts = (functional.normalize(torch.randn(n, 256, generator=generator)) for n in (num_images, num_texts))
images[:256] @ texts[:1000].T  # what the library keeps for products is there now
before, most, is_done = resident_mb(), [0.0], threading.Event()

def watch():
    while not is_done.wait(0.02):
        most[0] = max(most[0], resident_mb())

threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
labels = [(image,) for image in range(num_images)], [(text * num_images // num_texts,) for text in range(num_texts)]
recall_both_ways(images, texts, Relevance(*labels))
took_s = time.perf_counter() - start
is_done.set()
print(most[0] - before, took_s)
"""


class Size(msgspec.Struct, frozen=True):
    """N images, M captions; the most memory beside their vectors, and the time."""

    num_images: int
    num_texts: int
    more_mb: float
    seconds: float


def measure(num_images: int, num_texts: int) -> Size:
    """Take recall of random vectors in a process of its own."""
    more_mb, seconds = printed_numbers(_PROCESS, str(num_images), str(num_texts))
    return Size(num_images, num_texts, round(more_mb, 1), round(seconds, 1))


def run() -> None:
    """Measure and record: the memory must not grow with the product."""
    sizes = tuple(measure(*size) for size in SIZES)
    rows = [
        Row(
            f"recall over {size.num_images:,} images and {size.num_texts:,} captions",
            1,
            int(size.more_mb <= MOST_MORE_MB),
            f"{size.more_mb:.0f} MB beside the vectors, {size.seconds:.0f} s",
        )
        for size in sizes
    ]
    record("ranks", rows, {"sizes": sizes})

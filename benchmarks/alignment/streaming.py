"""Memory and the wait for the first batch, of shards that are streamed beside shards that are listed first.

python -m benchmarks.alignment.streaming --folder FOLDER

Makes 200 shards of 500 tiny pictures in the folder when they are not there yet. Each way runs in a process of its own,
without a model and without workers: from the configuration to the first batch of 256, and on to the ninetieth. Seconds
are of processor time.
"""

import argparse
import io
import resource
import sys
import tarfile
import time
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.processes import printed_numbers
from benchmarks.harness.results import command_line, write_result
from mmalign.config import Config, DataConfig, StreamConfig, TrainConfig
from mmalign.data import DataSource, SplitConfig
from mmalign.data.augment import ImageAugment
from mmalign.distributed import ALONE
from mmalign.optim import Schedule, plan_steps
from mmalign.run.pairs import identify_pairs, load_sources, merged_splits
from mmalign.training.inputs import LiveImages, LiveTexts, Steps, load_steps
from mmalign.training.shard_steps import ShardStream
from mmalign_runtime.spec import ImageSpec, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer

RESULTS = Path(__file__).parent / "results/streaming.json"
NUM_SHARDS, NUM_PAIRS, SIDE = 200, 500, 32
BATCH, NUM_BATCHES = 256, 90
Way = Literal["listed", "streamed"]
_PROCESS = "import sys; from benchmarks.alignment.streaming import measure; print(*measure(*sys.argv[1:]))"


class Found(msgspec.Struct, frozen=True):
    """One way: seconds to the first batch, pairs a second from there on, and the most memory beside the libraries."""

    way: str
    num_pairs: int
    first_batch_s: float
    pairs_per_s: float
    more_mb: float


class Result(msgspec.Struct, frozen=True):
    """Both ways, with the machine."""

    environment: Environment
    found: tuple[Found, ...]


def main() -> None:
    """Measure both ways, each over a quarter of the shards and over all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    watch = Watch(command_line("python -m benchmarks.alignment.streaming", sys.argv[1:]), torch.get_num_threads())
    write_shards(folder)
    found = []
    for pattern, num_shards in (("0[0-4]?.tar", NUM_SHARDS // 4), ("*.tar", NUM_SHARDS)):
        for way in ("listed", "streamed"):
            first_s, pace, more_mb = printed_numbers(_PROCESS, str(folder / pattern), way)
            rounded = round(first_s, 1), round(pace), round(more_mb)
            found.append(Found(way, num_shards * NUM_PAIRS, *rounded))
    rows = [[str(cell) for cell in msgspec.structs.astuple(each)] for each in found]
    print(table(["", "pairs", "first batch, s", "pairs/s", "memory, MB"], rows))
    write_result(Result(watch.card(), tuple(found)), RESULTS)


def measure(pattern: str, way: Way) -> tuple[float, float, float]:
    """Take batches and return seconds to the first, pairs a second behind it, and MB beside the libraries."""
    config = _config(pattern, way)
    tokenizer = _tokenizer()
    before_mb, started = _most_mb(), time.process_time()
    if way == "streamed":
        stream = ShardStream(config)
        batches = stream.inputs(Schedule(stream.num_pairs, BATCH, 1), tokenizer, 0, {}, ALONE)
    else:
        splits = merged_splits(load_sources(config.data))
        identify_pairs(splits)
        pairs = splits.train
        images = LiveImages(pairs, ImageAugment(config.augment, config.image))
        steps = Steps(pairs, images, LiveTexts(pairs, tokenizer), config.augment.first_caption)
        batches = load_steps(steps, plan_steps(Schedule(len(pairs), BATCH, 1), 0), config.train.num_workers)
    next(batches)
    first_s, started = time.process_time() - started, time.process_time()
    for _ in range(NUM_BATCHES - 1):
        next(batches)
    pace = (NUM_BATCHES - 1) * BATCH / (time.process_time() - started)
    return first_s, pace, _most_mb() - before_mb


def _config(pattern: str, way: Way) -> Config:
    source = DataSource(pattern)
    if way == "streamed":
        source = msgspec.structs.replace(source, stream=True, num_pairs=NUM_SHARDS * NUM_PAIRS)
    data = DataConfig(sources=(source,), split=SplitConfig(0, 0), stream=StreamConfig())
    return Config(data=data, image=ImageSpec(size=SIDE), train=TrainConfig(batch_size=BATCH))


def _tokenizer() -> TextTokenizer:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "picture": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(words, TextSpec(context_length=16))


def _most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kilobytes on Linux


def write_shards(folder: Path) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(NUM_SHARDS):
        path = folder / f"{shard:03d}.tar"
        if path.exists():
            continue
        with tarfile.open(path.with_suffix(".part"), "w") as tar:
            for number in range(shard * NUM_PAIRS, (shard + 1) * NUM_PAIRS):
                for suffix, content in ((".png", _png(number)), (".txt", f"a picture {number}".encode())):
                    info = tarfile.TarInfo(f"{number:06d}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        path.with_suffix(".part").rename(path)


def _png(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


if __name__ == "__main__":
    main()

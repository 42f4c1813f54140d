"""Time to tokenize a text of a million characters: python -m benchmarks.reliability long_texts

Beside one of 2,000 of the same language, in turns, both checked as the embedder checks them. The context holds 128
tokens.
"""

import random
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.harness.places import bundle_at_hand
from benchmarks.harness.timing import interleaved, median_ms, timed
from benchmarks.reliability.record import Found, Row
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import TextTower
from mmalign_runtime.tokenizer import TextTokenizer

CONTEXT_LENGTH = 128
NUM_SHORT, NUM_LONG = 2_000, 1_000_000
MOST_MORE_MS = 2.0
_NUM_TURNS = 40
_SENTENCES = {
    "English": "a photo of a dog, running over the beach. ",
    "Russian": "собака бежит по пляжу, кошка спит. ",
    "Chinese": "狗在海滩上跑，猫在睡觉。",
    "emoji": "🐶 ",
    "a list": "dog,cat,",
}


class Pace(msgspec.Struct, frozen=True):
    """Medians over the turns."""

    language: str
    short_ms: float
    long_ms: float


def pace(tokenizer: TextTokenizer, language: str) -> Pace:
    sentence = _SENTENCES[language]
    texts = [(sentence * (length // len(sentence) + 1))[:length] for length in (NUM_SHORT, NUM_LONG)]
    assert tokenizer.encode(texts).truncated.all()
    calls = {len(text): partial(timed, partial(tokenizer.encode, [text])) for text in texts}
    laps = interleaved(calls, _NUM_TURNS, random.Random(0))
    return Pace(language, median_ms(laps[NUM_SHORT]), median_ms(laps[NUM_LONG]))


def run(bundle: Path | None = None) -> Found:
    opened = open_bundle(bundle or bundle_at_hand())
    files = opened.spec.tower("text", TextTower)
    spec = msgspec.structs.replace(files.spec, context_length=CONTEXT_LENGTH)
    tokenizer = TextTokenizer.from_bytes(opened.read(files.tokenizer), files.tokenizer, spec)
    paces = [pace(tokenizer, language) for language in _SENTENCES]
    good = sum(found.long_ms - found.short_ms <= MOST_MORE_MS for found in paces)
    shown = ", ".join(f"{found.language} {found.short_ms:.2f} and {found.long_ms:.2f} ms" for found in paces)
    what = f"texts of {NUM_SHORT:,} and {NUM_LONG:,} characters, {CONTEXT_LENGTH} tokens kept"
    return [Row(what, len(paces), good, shown)], {"paces": paces}

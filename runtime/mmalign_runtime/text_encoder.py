"""The text side of a bundle, stage by stage: what the embedder runs, and what verify and bench look into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.engines import open_session
from mmalign_runtime.engine.session import Feeds, SessionOptions
from mmalign_runtime.engine.threads import limit_tokenizer_threads
from mmalign_runtime.spec import TextTower
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TextTokenizer, TokenBatch, TokenRow, check_text
from mmalign_runtime.unit_vectors import UnitVectors

# On a CPU what a run keeps of more tokens leaves the caches, which runs that go on at once share: measured on 2 cores,
# with the demo's tower and the reference's (docs/decisions.md). Another device takes whole batches.
_TOKEN_BUDGET, _TOKEN_BUDGET_AT_ONCE = 512, 256


class TextEncoder:
    """The text side: tokenize, tower."""

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        found = bundle.spec.tower("text", TextTower)
        self.spec, self.inputs = found.spec, found.inputs
        self._checked = UnitVectors(bundle.spec.embed_dim, f"{bundle.path}: the text tower")
        limit_tokenizer_threads(options.pool.num_threads)
        self.tokenizer = TextTokenizer.from_bytes(bundle.read(found.tokenizer), found.tokenizer, found.spec)
        # Texts differ in length, so a batch seldom has the shape of the last one.
        varying = msgspec.structs.replace(options, reuse_memory_plan=False)
        self.session = open_session(bundle, "text", found.inputs.names(), varying)
        self.num_runs = self.session.num_runs
        budget = _TOKEN_BUDGET if self.num_runs == 1 else _TOKEN_BUDGET_AT_ONCE
        self.token_budget = budget if options.provider == "cpu" else None

    def check(self, text: str, index: int) -> None:
        """Raise ItemError when a text cannot be tokenized."""
        check_text(text, index, self.spec)

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return the tokens of checked texts."""
        return self.tokenizer.tokenize(texts)

    def padded_length(self, rows: Sequence[TokenRow]) -> int:
        """Return L of the batch that these rows would make."""
        return self.tokenizer.padded_length(rows)

    def batch(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return rows as one batch (B, L)."""
        return self.tokenizer.batch(rows)

    def feeds(self, texts: Iterable[str]) -> Iterator[Feeds]:
        """Yield what the tower is fed with for each text alone. Raises ItemError."""
        for text in texts:
            tokens = self.tokenizer.encode([text])
            yield self.inputs.feeds(tokens.input_ids, tokens.attention_mask)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) for B checked texts."""
        return self.tower(self.tokenizer.encode(texts))

    def tower(self, tokens: TokenBatch) -> Vectors:
        """Return (B, D) for tokens (B, L)."""
        feeds = self.inputs.feeds(tokens.input_ids, tokens.attention_mask)
        return self._checked(self.session.run(feeds))

    def close(self) -> None:
        """Let go of the tower."""
        self.session.close()

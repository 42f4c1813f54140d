from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmalign_export.errors import SourceError
from mmalign_export.sources.vocabulary import fitted_tokenizer

PIECES = ["<pad>", "</s>", "<unk>", "\u2581a", "\u2581dog", "\u2581", "<", ">", "extra"]
EXTRA = ["<extra_1>", "<extra_0>"]
SCORES = [(piece, -float(at)) for at, piece in enumerate(PIECES)] + [(piece, 0.0) for piece in EXTRA]
IDS = {piece: at for at, piece in enumerate((*PIECES, *EXTRA))}
MODELS = {
    "Unigram, as T5's": lambda: models.Unigram(SCORES, unk_id=2),
    "WordPiece": lambda: models.WordPiece(IDS, unk_token="<unk>"),
    "WordLevel": lambda: models.WordLevel(IDS, unk_token="<unk>"),
    "BPE": lambda: models.BPE(IDS, [], unk_token="<unk>"),
}


def made(kind: str, *, is_added: bool = True, end: str = "</s>") -> Tokenizer:
    """Return a tokenizer of nine pieces and two extra tokens behind them."""
    tokenizer = Tokenizer(MODELS[kind]())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", *(EXTRA if is_added else ())])
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, IDS[end])])
    return tokenizer


@pytest.mark.parametrize("kind", MODELS)
def test_added_tokens_without_a_vector_are_read_as_text(kind: str) -> None:
    tokenizer = made(kind)
    assert max(tokenizer.encode("a dog <extra_0>").ids) == len(PIECES) + 1
    fitted = fitted_tokenizer(tokenizer, len(PIECES))
    assert max(fitted.encode("a dog <extra_0>").ids) < len(PIECES)
    assert fitted.encode("a dog").ids == tokenizer.encode("a dog").ids
    assert max(fitted.get_vocab().values()) == len(PIECES) - 1


def test_one_that_fits_stays_as_it_is() -> None:
    tokenizer = made("BPE")
    assert fitted_tokenizer(tokenizer, len(IDS)) is tokenizer
    assert fitted_tokenizer(tokenizer, 2 * len(IDS)) is tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "num_embeddings", "seen"),
    [
        (made("Unigram, as T5's", is_added=False), len(PIECES), "has 11 tokens, and the text tower vectors for 9"),
        (made("BPE"), len(PIECES) - 1, "has 11 tokens, and the text tower vectors for 8"),
        (made("BPE"), 2 * len(IDS) + 1, "has 11 tokens, and the text tower vectors for 23"),
        (made("Unigram, as T5's", end="<extra_0>"), len(PIECES), "puts a token into every text that has no vector"),
    ],
)
def test_another_model_s_is_refused(tokenizer: Tokenizer, num_embeddings: int, seen: str) -> None:
    with pytest.raises(SourceError, match=rf"{seen}.*not of one model"):
        fitted_tokenizer(tokenizer, num_embeddings)

"""SigLIP's sentencepiece tokenizer as a tokenizer.json: the ids are those of transformers' own, in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import transformers
from transformers.convert_slow_tokenizer import import_protobuf

from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_export.sources.transformers_texts import convert_siglip, siglip_cleaning
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.text_charsmap import Charsmap
from mmalign_runtime.tokenizer import TextTokenizer
from tests.export.sources.many_scripts import many_scripts
from tests.export.sources.tiny import spm_file

CONTEXT = 10_000
WITH_SPECIAL = (
    "a dog </s> in the rain",
    "x <unk>  Y </s> z!",
    "</s></s> a",
    " </s> b",
    "▁x ▁▁ y",
    "  two",
    "\u200bzero",
)
# Blocks whose characters the tables join, split and drop.
BLOCKS = ((0x20, 0x600), (0x900, 0xE00), (0x1100, 0x1200), (0x1E00, 0x2200), (0x3000, 0x3200), (0xAC00, 0xAC40))
MARKS = ((0x300, 0x370), (0xFF00, 0xFFE0))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> transformers.SiglipTokenizer:
    return transformers.SiglipTokenizer(str(spm_file(tmp_path_factory.mktemp("spm"))), model_max_length=CONTEXT)


def trained(folder: Path, texts: list[str], **options: object) -> Path:
    """A sentencepiece model of these texts."""
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / "spiece"),
        minloglevel=2,
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, **options},
    )
    return folder / "spiece.model"


def bound(slow: transformers.SiglipTokenizer) -> TextTokenizer:
    return TextTokenizer(convert_siglip(slow), TextSpec(cleaning=siglip_cleaning(slow), context_length=CONTEXT))


def differing(slow: transformers.SiglipTokenizer, texts: list[str]) -> list[str]:
    ours = bound(slow)
    return [text for text in texts if slow(text)["input_ids"] != ours.encode([text]).input_ids[0].tolist()]


def likelihood(slow: transformers.SiglipTokenizer, ids: list[int]) -> np.float32:
    """Of one cut of a text: the sum of its pieces' scores."""
    return np.float32(sum(slow.sp_model.get_score(number) for number in ids))


def test_of_ten_thousand_texts_in_many_scripts_three_differ(slow: transformers.SiglipTokenizer) -> None:
    """Two cuts of them are equally likely: sentencepiece adds scores in float32, tokenizers in float64."""
    found, ours = differing(slow, [*many_scripts(10_000), *PROOF_TEXTS, *WITH_SPECIAL]), bound(slow)
    assert len(found) == 3
    for text in found:
        theirs, mine = slow(text)["input_ids"], ours.encode([text]).input_ids[0].tolist()
        assert sorted(theirs) == sorted(mine)
        assert likelihood(slow, theirs) == likelihood(slow, mine)


def test_of_ten_thousand_texts_one_differs_with_twelve_thousand_pieces(tmp_path: Path) -> None:
    texts = [text.replace("\n", " ") for text in (*PROOF_TEXTS, *many_scripts(2500, seed=7)) if len(set(text)) > 1]
    model = trained(tmp_path, texts, vocab_size=12_000, character_coverage=0.98)
    slow = transformers.SiglipTokenizer(str(model), model_max_length=CONTEXT)
    found = differing(slow, many_scripts(10_000))
    assert len(found) == 1
    assert "666" in found[0]


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf"])
def test_every_table_of_sentencepiece_is_read_as_it_reads_it(tmp_path: Path, rule: str) -> None:
    path = trained(tmp_path, ["a dog"] * 10, vocab_size=20, normalization_rule_name=rule)
    model = import_protobuf().ModelProto.FromString(path.read_bytes())
    spec = model.normalizer_spec
    spec.remove_extra_whitespaces = spec.add_dummy_prefix = spec.escape_whitespaces = False
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    ours = Charsmap(spec.precompiled_charsmap)
    drawn = np.random.default_rng(0)
    codes = np.concatenate([np.arange(*block) for block in (*BLOCKS, *MARKS, *MARKS)])
    texts = ["".join(map(chr, drawn.choice(codes, 8).tolist())) for _ in range(5_000)]
    texts += [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    assert [text for text in texts if ours.replace(text) != theirs.normalize(text)] == []


def test_punctuation_goes_case_goes_and_spaces_become_one(slow: transformers.SiglipTokenizer) -> None:
    ours = bound(slow)
    odd, plain, empty = (
        ours.encode([text]).input_ids[0].tolist() for text in ("A dog!,  in\tthe  RAIN... ", "a dog in the rain", "")
    )
    assert odd == plain
    assert plain[-1] == slow.eos_token_id
    assert empty == [slow.eos_token_id]


def test_case_is_kept_where_the_tokenizer_keeps_it(tmp_path: Path) -> None:
    slow = transformers.SiglipTokenizer(str(spm_file(tmp_path)), model_max_length=CONTEXT, do_lower_case=False)
    assert siglip_cleaning(slow) == "siglip_sentencepiece_cased"
    assert differing(slow, [*PROOF_TEXTS[:80], "A DOG", *WITH_SPECIAL]) == []
    assert slow("A DOG")["input_ids"] != slow("a dog")["input_ids"]

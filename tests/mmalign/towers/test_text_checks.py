from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.pooling import Pooling
from mmalign.towers.sentence_modules import SentenceModules
from mmalign.towers.text import TextTower, TextTowerConfig, create_text_tower
from mmalign.towers.text_checks import check_sentence_modules, check_text_spec, check_text_tower
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.tolerances import PADDING_INVARIANCE

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{at}" for at in range(36))]
SPEC = TextSpec(context_length=16)
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}


def word_tokenizer(template: str = "[CLS] $A [SEP]") -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def tower_of(config: transformers.PretrainedConfig, pooling: Pooling) -> TextTower:
    torch.manual_seed(0)
    return create_text_tower(config, pooling).eval()


def causal() -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(**SIZES)


def bert() -> transformers.PretrainedConfig:
    return transformers.BertConfig(**SIZES)


@pytest.mark.parametrize(
    "config",
    [
        causal(),
        transformers.CLIPTextConfig(**SIZES, bos_token_id=2, eos_token_id=3),
        transformers.GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("template", ["[CLS] $A [SEP]", "$A"])
def test_causal_tower_that_reads_its_first_token_is_refused(
    config: transformers.PretrainedConfig, template: str
) -> None:
    message = r"same features with text_tower\.pooling = 'cls': .*Set text_tower\.pooling = \"last\""
    with pytest.raises(ConfigError, match=message):
        check_text_tower(tower_of(config, "cls"), word_tokenizer(template), SPEC)
    for pooling in ("last", "mean", "max"):
        check_text_tower(tower_of(config, pooling), word_tokenizer(template), SPEC)


def test_first_token_that_is_a_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"puts none before a text: .*Set text_tower\.pooling = \"mean\""):
        check_text_tower(tower_of(bert(), "cls"), word_tokenizer("$A [SEP]"), SPEC)
    check_text_tower(tower_of(bert(), "mean"), word_tokenizer("$A [SEP]"), SPEC)


def test_tower_whose_weights_are_all_the_same_is_refused() -> None:
    tower = tower_of(bert(), "mean")
    nn.init.zeros_(tower.encoder.get_input_embeddings().weight)
    with pytest.raises(ConfigError, match=r"'mean' and with every other.*choose another tower"):
        check_text_tower(tower, word_tokenizer(), SPEC)


def test_features_that_are_not_finite_are_refused() -> None:
    tower = tower_of(bert(), "mean")
    next(tower.encoder.parameters()).data[-1, 0] = torch.nan
    tower.encoder.get_input_embeddings().weight.data[:] = torch.nan
    with pytest.raises(WeightsError, match="features that are not finite: its weights are damaged"):
        check_text_tower(tower, word_tokenizer(), SPEC)


@pytest.mark.parametrize(
    "config",
    [
        transformers.RobertaConfig(**SIZES, pad_token_id=0),
        transformers.XLMRobertaConfig(**(SIZES | {"max_position_embeddings": 26}), pad_token_id=1),
        transformers.MPNetConfig(**SIZES, pad_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_longest_text_of_a_tower_with_an_offset_of_positions_is_named(config: transformers.PretrainedConfig) -> None:
    """Positions begin after the padding token's id, so that fewer are left than the configuration says."""
    longest = config.max_position_embeddings - (2 if config.model_type == "mpnet" else config.pad_token_id + 1)
    asked = msgspec.structs.replace(SPEC, context_length=config.max_position_embeddings)
    tower, tokenizer = tower_of(config, "mean"), word_tokenizer()
    message = rf"fails on that many tokens .* Set text\.context_length = {longest}\."
    with pytest.raises(ConfigError, match=message):
        check_text_tower(tower, tokenizer, asked)
    check_text_tower(tower, tokenizer, msgspec.structs.replace(SPEC, context_length=longest))


def test_tower_that_lets_padding_in_is_refused() -> None:
    config = transformers.FNetConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, intermediate_size=48, max_position_embeddings=24
    )
    tower, tokenizer = tower_of(config, "cls"), word_tokenizer()
    with pytest.raises(ConfigError, match=r"does not leave padding out\. Set text\.padding = \"fixed\""):
        check_text_tower(tower, tokenizer, SPEC)
    check_text_tower(tower, tokenizer, msgspec.structs.replace(SPEC, padding="fixed"))


@pytest.mark.parametrize(
    "config",
    [
        transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
        transformers.DPRConfig(**SIZES),  # has no token vectors
    ],
    ids=lambda config: config.model_type,
)
def test_model_that_is_no_text_encoder_is_refused(config: transformers.PretrainedConfig) -> None:
    with pytest.raises(ConfigError, match=r"cannot embed a text .*Choose an encoder"):
        check_text_tower(tower_of(config, "mean"), word_tokenizer(), SPEC)


def test_tower_narrower_than_it_says_is_refused() -> None:
    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=32, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ConfigError, match=r"features of shape \(16,\), expected \(32,\)"):
        check_text_tower(tower_of(config, "last"), word_tokenizer(), SPEC)


def test_context_without_room_for_a_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="context_length is 2, and the tokenizer adds 2 tokens to every text"):
        check_text_tower(tower_of(bert(), "mean"), word_tokenizer(), TextSpec(context_length=2))
    check_text_tower(tower_of(bert(), "mean"), word_tokenizer(), TextSpec(context_length=3))


def test_checking_leaves_the_tower_as_it_was() -> None:
    tower = tower_of(bert(), "mean").train()
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    check_text_tower(tower, word_tokenizer(), SPEC)
    assert tower.training
    assert tower.pooling == "mean"
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TextSpec(context_length=25), "context_length is 25, the text tower reads 24"),
        (TextSpec(context_length=24, pad_token="<pad>"), r"pad_token '<pad>'.*The tower's are '\[PAD\]' and 0"),
        (TextSpec(context_length=24, pad_token_id=1), r"pad_token_id 1"),
    ],
)
def test_text_spec_that_does_not_fit_is_refused(spec: TextSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_text_spec(spec, word_tokenizer(), tower_of(bert(), "cls"))


def test_padding_on_the_left_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"depend on its batch\. Set text\.padding_side = 'right'"):
        check_text_spec(TextSpec(context_length=16, padding_side="left"), word_tokenizer(), tower_of(bert(), "cls"))


def test_tower_without_a_padding_token_names_one_that_will_do() -> None:
    config = transformers.GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3)
    spec = TextSpec(context_length=16, pad_token="<pad>", pad_token_id=7)
    with pytest.raises(ConfigError, match=r"The tower has none; take its end of text, '\[SEP\]' and 3"):
        check_text_spec(spec, word_tokenizer(), tower_of(config, "last"))


@pytest.mark.parametrize("has_gap", [False, True])
def test_tokenizer_with_tokens_that_the_tower_does_not_know_is_refused(has_gap: bool) -> None:
    tokenizer = word_tokenizer()
    if has_gap:  # fewer tokens than the tower knows, one of them with a higher id
        tokenizer.model = models.WordLevel({"[PAD]": 0, "[UNK]": 1, "w": 40}, unk_token="[UNK]")
    else:
        tokenizer.add_tokens(["unheard"])
    with pytest.raises(ConfigError, match="tokenizer has 41 tokens, and the text tower knows 40"):
        check_text_spec(TextSpec(context_length=8), tokenizer, tower_of(bert(), "cls"))


@pytest.mark.parametrize(
    ("pooling", "context_length", "message"),
    [
        ("cls", 16, r"pooling is 'cls', and .* was trained with 'mean'\. Set text_tower\.pooling = 'mean'"),
        ("auto", 21, r"context_length is 21, and .* reads 20 tokens at most .*Set text\.context_length = 20"),
    ],
)
def test_configuration_that_contradicts_a_sentence_model_is_refused(
    pooling: str, context_length: int, message: str
) -> None:
    modules = SentenceModules(pooling="mean", max_seq_length=20)
    config = msgspec.convert({"pooling": pooling}, TextTowerConfig)
    with pytest.raises(ConfigError, match=message):
        check_sentence_modules(modules, config, TextSpec(context_length=context_length))


@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
@pytest.mark.parametrize("config", [causal(), bert()], ids=lambda config: config.model_type)
def test_text_without_tokens_has_one_vector_alone_and_beside_others(
    config: transformers.PretrainedConfig, pooling: Pooling
) -> None:
    tower, tokenizer = tower_of(config, pooling), TextTokenizer(word_tokenizer("$A"), SPEC)

    def features(texts: list[str]) -> Tensor:
        tokens = tokenizer.encode(texts)
        with torch.no_grad():
            found: Tensor = tower(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))
        return found

    alone, beside = features([""])[0], features(["w1 w2 w3", "", " ", "w4"])
    assert alone.isfinite().all()
    assert alone.abs().max() > 0
    assert (beside[1:3] - alone).abs().max() <= PADDING_INVARIANCE.bound

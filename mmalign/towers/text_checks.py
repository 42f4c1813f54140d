"""What is tried at the start of training, so that a text tower fails there and not at its end or at export.

A tower is judged by running it, not by its name: on two texts, beside a longer text, on as many tokens as the context
holds. Shapes: B batch, F features.
"""

from __future__ import annotations

import bisect

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.pooling import TowerPooling
from mmalign.towers.probe_texts import ProbeTexts, batch_of, probe_texts
from mmalign.towers.sentence_modules import SentenceModules
from mmalign.towers.text import TOWER_ERRORS, TextTower, TextTowerConfig, first_line
from mmalign_runtime.spec import TextSpec

# Of the largest feature. Two texts of a sound tower differ by a hundredth and more, even untrained; what rounding makes
# of one text is below a hundred-thousandth.
_SAME_TEXT = 1e-3
_CONSTANT = 1e-6
_NUM_WORDS = 3


def check_sentence_modules(modules: SentenceModules | None, config: TextTowerConfig, spec: TextSpec) -> None:
    """Raise ConfigError when the configuration contradicts what a sentence-transformers model says of itself."""
    if modules is None:
        return
    begins_so = config.pooling == "attention" and modules.pooling == "mean"  # what its weights are before they learn
    if config.pooling not in ("auto", modules.pooling) and not begins_so:
        raise ConfigError(
            f"text_tower.pooling is {config.pooling!r}, and the sentence-transformers model {config.name} was trained "
            f"with {modules.pooling!r}. Set text_tower.pooling = {modules.pooling!r}, or leave it out."
        )
    if modules.max_seq_length is not None and spec.context_length > modules.max_seq_length:
        raise ConfigError(
            f"text.context_length is {spec.context_length}, and the sentence-transformers model {config.name} reads "
            f"{modules.max_seq_length} tokens at most (max_seq_length). Set text.context_length = "
            f"{modules.max_seq_length} or less."
        )


def check_text_spec(spec: TextSpec, tokenizer: Tokenizer, tower: TextTower) -> None:
    """Raise ConfigError when text spec, tokenizer and tower do not go together."""
    config = tower.encoder.config
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and 0 < longest < spec.context_length:  # XLNet says -1: no limit
        raise ConfigError(
            f"text.context_length is {spec.context_length}, the text tower reads {longest} tokens at most. Lower it."
        )
    num_tokens = 1 + max(tokenizer.get_vocab().values(), default=0)  # ids may have gaps
    known = getattr(config, "vocab_size", num_tokens)
    if num_tokens > known:
        raise ConfigError(
            f"the tokenizer has {num_tokens} tokens, and the text tower knows {known}. "
            "Set text_tower.tokenizer to the one that the tower was trained with."
        )
    if spec.padding_side == "left":
        raise ConfigError(
            "text.padding_side is 'left', where a text's positions, and with them its vector, depend on its batch. Set "
            "text.padding_side = 'right'."
        )
    if tokenizer.token_to_id(spec.pad_token) != spec.pad_token_id:
        raise ConfigError(
            f"text.pad_token {spec.pad_token!r} with text.pad_token_id {spec.pad_token_id} is not in the tokenizer. "
            f"{_padding_hint(tokenizer, tower)}"
        )


def check_text_tower(tower: TextTower, tokenizer: Tokenizer, spec: TextSpec) -> None:
    """Run texts of the tokenizer through a tower.

    Raises ConfigError when it is not an encoder of texts, gives every text the same features, lets padding change them,
    or fails on `context_length` tokens; WeightsError when its features are not finite.
    """
    probe = probe_texts(tokenizer, spec)
    was_training = tower.training
    tower.eval()
    try:
        with torch.inference_mode():
            _check_features(tower, probe, spec)
            _check_length(tower, probe, spec)
            _check_padding(tower, probe, spec)
    finally:
        tower.train(was_training)


def _check_features(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> None:
    try:
        features = _two_texts(tower, probe, spec)
    except TOWER_ERRORS as error:
        raise ConfigError(
            f"the text tower cannot embed a text ({first_line(error)[:-1]}). Choose an encoder, as BERT is one."
        ) from error
    if features.shape != (2, tower.feature_dim):
        raise ConfigError(
            f"the text tower gives features of shape {tuple(features.shape[1:])}, expected ({tower.feature_dim},). "
            "Choose an encoder whose vectors are as wide as its hidden_size says."
        )
    if not features.isfinite().all():
        raise WeightsError(
            "the text tower gives features that are not finite: its weights are damaged. Fetch them again, or choose "
            "other ones."
        )
    if _is_constant(features):
        raise ConfigError(_constant_message(tower, probe, spec))
    if tower.pooling == "cls" and not probe.before:
        raise ConfigError(
            'text_tower.pooling is "cls", which reads the first token, and the tokenizer puts none before a text: its '
            f'first word would stand for all of it. Set text_tower.pooling = "{_working_pooling(tower, probe, spec)}".'
        )


def _check_length(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> None:
    row = probe.full_row()

    def error_at(length: int) -> Exception | None:
        try:
            tower(*batch_of([row[:length]], length, spec.pad_token_id))
        except TOWER_ERRORS as error:
            return error
        return None

    if (error := error_at(spec.context_length)) is not None:
        longest = bisect.bisect_left(range(1, spec.context_length), True, key=lambda n: error_at(n) is not None)
        raise ConfigError(
            f"text.context_length is {spec.context_length}, and the text tower fails on that many tokens "
            f"({first_line(error)[:-1]}); the most that it reads is {longest}. Set text.context_length = {longest}."
        )


def _check_padding(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> None:
    """Compare a text alone with the same text beside one that fills the context."""
    if spec.padding == "fixed":
        return
    row = probe.row(min(probe.room, _NUM_WORDS))
    alone = tower(*batch_of([row], len(row), spec.pad_token_id))[0]  # (F,)
    beside = tower(*batch_of([row, probe.full_row()], spec.context_length, spec.pad_token_id))[0]  # (F,)
    if not (alone - beside).abs().max() <= _SAME_TEXT * alone.abs().max():
        raise ConfigError(
            "the text tower gives a text other features beside a longer one: it does not leave padding out. Set "
            'text.padding = "fixed", which pads all texts to the same length, or choose another tower.'
        )


def _two_texts(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> Tensor:
    """Return the features (2, F) of two texts that differ in their last word, and in the only one if one has room."""
    num_words = min(probe.room, _NUM_WORDS)
    rows = [probe.row(num_words), probe.row(num_words, last_differs=True)]
    length = spec.context_length if spec.padding == "fixed" else len(rows[0])
    features: Tensor = tower(*batch_of(rows, length, spec.pad_token_id))
    return features


def _is_constant(features: Tensor) -> bool:
    return bool((features[0] - features[1]).abs().max() <= _CONSTANT * features.abs().max())


def _constant_message(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> str:
    seen = f"the text tower gives texts that differ the same features with text_tower.pooling = {tower.pooling!r}"
    if (working := _working_pooling(tower, probe, spec)) is None:
        return f"{seen} and with every other. Its weights are damaged, or it does not read text: choose another tower."
    return f'{seen}: the token that it reads sees nothing of what follows. Set text_tower.pooling = "{working}".'


def _working_pooling(tower: TextTower, probe: ProbeTexts, spec: TextSpec) -> TowerPooling | None:
    """Return a pooling that tells texts apart: "last" where the first token sees nothing of the others, else "mean"."""
    asked = tower.pooling
    try:
        tower.pooling = "cls"
        order: tuple[TowerPooling, ...] = (
            ("last", "mean") if _is_constant(_two_texts(tower, probe, spec)) else ("mean",)
        )
        for tower.pooling in order:
            if not _is_constant(_two_texts(tower, probe, spec)):
                return tower.pooling
    finally:
        tower.pooling = asked
    return None


def _padding_hint(tokenizer: Tokenizer, tower: TextTower) -> str:
    config = tower.encoder.config
    for key in (
        "pad_token_id",
        "eos_token_id",
        "bos_token_id",
    ):  # padding is masked, so that any token may stand for it
        known = getattr(config, key, None)
        token = tokenizer.id_to_token(known) if isinstance(known, int) else None
        if token is not None:
            of = "The tower's are" if key == "pad_token_id" else "The tower has none; take its end of text,"
            return f"{of} {token!r} and {known}: set text.pad_token and text.pad_token_id to them."
    return "Set both to a token that the tokenizer has; it is masked, so that any special one will do."

"""The guard of the split by meaning: what it leaves out, of which sources, and what a run then goes on with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmalign.config import Config
from mmalign.data import Pair, Splits
from mmalign.data.pair import Origin
from mmalign.errors import ConfigError, TrainingError
from mmalign.features.near_synonyms import without_near_synonyms
from mmalign.run.pairs import SourcePairs, merged_splits
from mmalign.training import train

MakeConfig = Callable[[dict[str, object]], Config]

# Angles in degrees: the cosine of two captions is that of the difference.
ANGLES = {"fox": 0, "red fox": 20, "wolf": 50, "boat": 180, "ship": 165, "sun": 270, "star": 90}


class Angles:
    """Text features that are known."""

    def of(self, texts: list[str], name: str) -> Tensor:
        """Return (M, 2), of different lengths."""
        angles = torch.deg2rad(torch.tensor([float(ANGLES[text]) for text in texts]))
        return torch.stack([angles.cos(), angles.sin()], dim=1) * torch.arange(1, len(texts) + 1)[:, None]


def pairs(*captions: str) -> tuple[Pair, ...]:
    origin = Origin(Path("data.csv"), 1)
    return tuple(Pair(caption.encode(), (caption, "boat"), caption, origin) for caption in captions)


def guarded(limit: float | None, held_out: Splits | None = None) -> list[str]:
    splits = Splits(train=pairs("red fox", "wolf", "ship", "star"), val=pairs("sun", "sun"), test=pairs("fox"))
    sources = [SourcePairs("own", is_held_out=False, splits=splits)]
    sources += [SourcePairs("other", is_held_out=True, splits=held_out)] if held_out else []
    kept = without_near_synonyms(splits, sources, limit, Angles())  # type: ignore[arg-type]
    assert (kept.val, kept.test) == (splits.val, splits.test)
    return [pair.captions[0] for pair in kept.train]


def test_pairs_near_an_evaluated_caption_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert guarded(0.9) == ["wolf", "ship", "star"]  # cos 20 = 0.94
    assert "1 of 4 training pairs are left out" in caplog.text
    assert guarded(0.6) == ["ship", "star"]  # cos 50 = 0.64
    assert guarded(0.95) == guarded(None) == ["red fox", "wolf", "ship", "star"]


def test_what_is_evaluated_of_a_held_out_source_counts_and_what_is_trained_there_does_not() -> None:
    held_out = Splits(train=pairs("star"), val=pairs("boat"), test=())
    assert guarded(0.9, held_out) == ["wolf", "star"]  # ship and boat: cos 15 = 0.97


def test_a_source_that_is_trained_on_alone_guards_nothing_and_is_guarded_against() -> None:
    own = Splits(train=pairs("wolf", "star"), val=pairs("sun", "fox"), test=())
    alone = Splits(train=pairs("red fox", "boat", "ship"), val=(), test=())
    sources = [
        SourcePairs("own", is_held_out=False, splits=own),
        SourcePairs("alone", is_held_out=False, splits=alone, is_evaluated=False),
    ]
    kept = without_near_synonyms(merged_splits(sources), sources, 0.9, Angles())  # type: ignore[arg-type]
    assert {pair.captions[0] for pair in kept.train} == {"wolf", "star", "boat", "ship"}


def test_blocks_of_captions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.features.near_synonyms._NUM_ROWS", 3)
    assert guarded(0.9) == ["wolf", "ship", "star"]


def test_too_few_that_are_left_are_an_error() -> None:
    with pytest.raises(TrainingError, match="the train split has 0 pairs, expected at least 2"):
        guarded(0.6, Splits(train=(), val=pairs("boat"), test=pairs("star")))


def test_a_text_tower_that_learns_is_refused(make_config: MakeConfig) -> None:
    settings = {"data.split": {"val": 0.25, "test": 0.25, "max_caption_similarity": 0.8}, "text_tower.frozen": False}
    with pytest.raises((ConfigError, ValueError), match="compares captions by a text tower that stands still"):
        make_config(settings)
    config = make_config({**settings, "text_tower.frozen": True})
    assert config.data.split.max_caption_similarity == 0.8


def test_too_few_that_are_left_are_refused_before_the_run_is_begun(make_config: MakeConfig, tmp_path: Path) -> None:
    split = {"val": 0.25, "test": 0.25, "max_caption_similarity": 0.001}
    config = make_config({"data.split": split, "text_tower.frozen": True})
    with pytest.raises(TrainingError, match=r"the train split has \d pairs?, expected at least 2"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

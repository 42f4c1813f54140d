"""Evaluates the run in a folder, and writes the figures beside it: `scoring` does the work, for any model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mmalign.device import evaluation_device
from mmalign.features import ModelFeatures
from mmalign.near_synonyms import without_near_synonyms
from mmalign.pairs import load_sources, merged_splits
from mmalign.run import initial_model, load_run, read_trained_images
from mmalign.run_model import dual_model
from mmalign.scores import Checkpoint, Evaluation, SplitName
from mmalign.scoring import evaluate_model
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing

EVALUATION = "evaluation.json"


def evaluate(run_dir: str | Path, *, split: SplitName = "test", checkpoint: Checkpoint = "best") -> Evaluation:
    """Evaluate a run on concepts that it was not trained on, and write evaluation.json into its folder.

    Args:
        run_dir: The run's folder, as `train` wrote it; the data that its configuration names is read.
        split: Which side of the data.
        checkpoint: Which weights of the run.

    Returns:
        Recall at 1, 5 and 10 (shares, 0..1) in both directions and zero-shot accuracy of each source, beside those of a
        linear map from the pretrained towers and of chance.

    Raises:
        CheckpointError: The folder is not a run, is damaged, or cannot be written to.
        DataError: The data cannot be read.
        ConfigError: A source has nothing in the split.
        WeightsError: Towers learned, and the pretrained ones, which the linear map starts from, are not here.

    Example:
        >>> evaluate("runs/latest").sources[0].model.image_to_text.at_1  # doctest: +SKIP
        0.41
    """
    run = load_run(Path(run_dir), checkpoint)
    config, device, cache_dir = run.config, evaluation_device(run.config.train), Path(run.config.train.cache_dir)
    sources = load_sources(config.data, config.image)
    trained = start = ModelFeatures(dual_model(run), cache_dir, device, is_training=False)
    if not (config.image_tower.frozen and config.text_tower.frozen):
        pretrained = dual_model(msgspec.structs.replace(run, model=initial_model(config).eval()))
        start = ModelFeatures(pretrained, cache_dir, device, is_training=False)
    evaluation = evaluate_model(
        trained,
        start,
        sources,
        config.evaluate,
        splits=without_near_synonyms(
            merged_splits(sources), sources, config.data.split.max_caption_similarity, start.texts
        ),
        split=split,
        checkpoint=checkpoint,
        trained_images=read_trained_images(run.folder),
    )
    path = run.folder.file(EVALUATION)
    with named_writes(path, "Check the run's folder and the room on its disk."), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
    return evaluation

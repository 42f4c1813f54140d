"""Evaluates the run in a folder, and writes the figures beside it: `scoring` does the work, for any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mmalign.config import Config, EvaluateConfig
from mmalign.device import evaluation_device
from mmalign.errors import ModelError
from mmalign.evaluation.scoring import Shown, evaluate_model
from mmalign.features import ModelFeatures
from mmalign.features.near_synonyms import without_near_synonyms
from mmalign.figures.prefixes import check_dims
from mmalign.figures.scores import Checkpoint, Evaluation, SplitName
from mmalign.memory import within_memory
from mmalign.run import Run, initial_model, load_run, read_trained_images
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.towers.additions import is_still_below_pool
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing
from mmalign_runtime.bundle.hashes import sha256_of_file

EVALUATION = "evaluation.json"


@within_memory("the evaluation", "Evaluate fewer pairs at a time.", ModelError)
def evaluate(
    run_dir: str | Path,
    *,
    split: SplitName = "test",
    checkpoint: Checkpoint = "best",
    dims: Sequence[int] = (),
    show: Callable[[Shown], None] = lambda shown: None,
) -> Evaluation:
    """Evaluate a run on concepts that it was not trained on, and write evaluation.json into its folder.

    Args:
        run_dir: The run's folder, as `train` wrote it; the data that its configuration names is read.
        split: Which side of the data.
        checkpoint: Which weights of the run.
        dims: Recall is measured of these numbers of first components too, beside those of the configuration.
        show: Is given what there is to see of each source: items, vectors, and what each query came to.

    Returns:
        Of each source recall (shares, 0..1), MRR, nDCG, mean average precision and zero-shot accuracy with intervals,
        of the model, a linear map from the pretrained towers and chance; calibration, geometry, prefixes, languages.

    Raises:
        CheckpointError: The folder is not a run, is damaged, or cannot be written to.
        DataError: The data cannot be read.
        ConfigError: A source has nothing in the split.
        ModelError: It needs more memory than there is.
        WeightsError: A tower's own weights learned, and the pretrained ones, for the linear map, are not here.

    Example:
        >>> evaluate("runs/latest").sources[0].model.image_to_text.at_1  # doctest: +SKIP
        0.41
    """
    run = load_run(Path(run_dir), checkpoint)
    config, weights = run.config, sha256_of_file(run.folder.existing(f"{checkpoint}.safetensors"))
    sources = load_sources(config.data, config.image, config.text)
    trained, start = _features(run)
    limit = config.data.split.max_caption_similarity
    evaluation = evaluate_model(
        trained,
        start,
        sources,
        _with_dims(config, dims),
        splits=without_near_synonyms(merged_splits(sources), sources, limit, start.texts),
        split=split,
        checkpoint=checkpoint,
        trained_images=read_trained_images(run.folder),
        show=show,
    )
    return _written(msgspec.structs.replace(evaluation, weights_sha256=weights), run.folder.file(EVALUATION))


def _with_dims(config: Config, dims: Sequence[int]) -> EvaluateConfig:
    """Return a run's own with further dims. Of its own those count that its vectors have: versions before did not look.

    Raises ConfigError.
    """
    check_dims(dims, config.model.embed_dim)
    own = (dim for dim in config.evaluate.dims if dim < config.model.embed_dim)
    return msgspec.structs.replace(config.evaluate, dims=(*own, *dims))


def _features(run: Run) -> tuple[ModelFeatures, ModelFeatures]:
    """Return the features of a run's towers, and those of the pretrained ones, the same where no tower learned."""
    config, device, cache_dir = run.config, evaluation_device(run.config.train), Path(run.config.train.cache_dir)
    trained = ModelFeatures(dual_model(run), cache_dir, device, is_training=False)
    if config.image_tower.frozen and config.text_tower.frozen and config.text_tower.pooling != "attention":
        return trained, trained
    if all(map(is_still_below_pool, (run.model.image_tower, run.model.text_tower))):  # adapters are merged
        model = load_run(run.folder.path, checkpoint=None).model  # it has the pretrained weights itself
    else:
        model = initial_model(config).eval()
    pretrained = dual_model(msgspec.structs.replace(run, model=model))
    return trained, ModelFeatures(pretrained, cache_dir, device, is_training=False)


def _written(evaluation: Evaluation, path: Path) -> Evaluation:
    with named_writes(path, "Check the run's folder and the room on its disk."), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
    return evaluation

"""A training run: the folder that `mmalign train` wrote. The data that it was trained on is not needed."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from mmalign.data import DataError, Pair
from mmalign.errors import CheckpointError
from mmalign.evaluation import EVALUATION
from mmalign.figures.scores import Checkpoint, Evaluation
from mmalign.run import Run, load_run
from mmalign.run.model import dual_model
from mmalign.run.own_pairs import OWN_PAIRS, read_own_pairs, unseen
from mmalign.run.pairs import load_sources
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import source_file
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import refuse_options

logger = logging.getLogger(__name__)


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model of a run's folder, with its own pairs and its evaluation. Raises CheckpointError."""
    refuse_options("run", options, ("checkpoint",))
    run = load_run(Path(location), options.checkpoint)
    model = dual_model(run)
    weights = f"{options.checkpoint}.safetensors"
    names = ("config.toml", "tokenizer.json", "text_encoder.json", "frozen.safetensors", weights)
    files = {name: source_file(run.folder.existing(name)) for name in names}
    described = msgspec.structs.replace(
        model,
        origin=msgspec.structs.replace(model.origin, files=files),
        evaluation=_evaluation(run, options.checkpoint, files[f"{options.checkpoint}.safetensors"].sha256),
        own_pairs=_own_pairs(run),
    )
    return Imported(model=described)


def _evaluation(run: Run, checkpoint: Checkpoint, weights_sha256: str) -> Evaluation | None:
    """Return what was measured of these weights: not of the other checkpoint, nor of this one before training went on.

    Versions before this one wrote no hash of the weights.
    """
    path = run.folder.file(EVALUATION)
    if not path.is_file():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Run `mmalign evaluate {run.folder.path}` again, or remove it."
        ) from error
    if found.checkpoint == checkpoint and found.weights_sha256 in (None, weights_sha256):
        return found
    logger.warning(
        "%s is of other weights than %s.safetensors has, so the card has no figures. Run `mmalign evaluate %s "
        "--checkpoint %s` before you export",
        *(path, checkpoint, run.folder.path, checkpoint),
    )
    return None


def _own_pairs(run: Run) -> tuple[Pair, ...]:
    """Return a few real inputs of this model that it was not trained on: those in its folder, or else of its data.

    A run that was trained before they were kept, on a machine without its data, has none.
    """
    kept = read_own_pairs(run.folder.file(OWN_PAIRS))
    if kept is not None:
        return kept
    try:
        return unseen(load_sources(run.config.data, run.config.image, run.config.text)[0].splits)
    except (DataError, OSError) as error:
        logger.warning("the golden cases have no pairs of the run's own, since its data cannot be read: %s", error)
        return ()

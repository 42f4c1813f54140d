"""A run's folder: all that training needs to go on, and that evaluation and export need to start, with no hub.

run/config.toml            the configuration, every default written out
run/tokenizer.json         run/text_encoder.json (its architecture)
run/frozen.safetensors     weights that do not learn, written once
run/last.safetensors       weights that learn, optimizer, step           run/best.safetensors   weights that learn
run/metrics.csv            one line a step
run/trained_images.txt     the identity of every image trained on, one a line
run/own_pairs.msgpack      a few pairs of the test split, which export makes golden cases of
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer

from mmalign.checkpoints.averaging import averaged_tensors
from mmalign.checkpoints.checkpoint import copy_state, frozen_state, learned_state
from mmalign.checkpoints.tensors import read_tensors, write_tensors
from mmalign.config import Config, differing_keys, dump_config, load_dumped
from mmalign.data import Pair
from mmalign.data.identity import image_identity
from mmalign.errors import CheckpointError
from mmalign.figures.scores import Checkpoint
from mmalign.imported import ImportedTextTower, is_imported
from mmalign.model import DualEncoder, freeze
from mmalign.run.adapted import adapt_towers, merge_towers
from mmalign.towers.additions import pool_parameters
from mmalign.towers.depth import freeze_first_blocks
from mmalign.towers.regions import image_tower_with_regions, region_grid
from mmalign.towers.sentence_modules import DenseLayer
from mmalign.towers.text import TextTower, create_text_tower, load_text_tower, sentence_modules
from mmalign.towers.text_checks import check_sentence_modules, check_text_spec, check_text_tower
from mmalign.towers.tokenizer import load_tokenizer
from mmalign.towers.traceable import check_traceable
from mmalign.towers.vision import check_image_tower, create_image_tower, load_image_tower
from mmalign.towers.weights import register_packages
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing
from mmalign_runtime.bulk.locking import LOCK_NAME, only_writer

logger = logging.getLogger(__name__)

# What may differ when a run goes on: where and how fast things are done (steps are drawn from the seed, whatever worker
# prepares them; features are found by what made them), which items are refused, and what only evaluation reads. Not
# train.device: processors sum in other orders. The pairs themselves are compared by what they are.
_MOVES_NO_NUMBER = (
    *("train.num_workers", "train.checkpoint_minutes", "train.cache_dir"),
    *("data.on_error", "data.held_out", "image.limits.", "text.max_characters", "evaluate.templates", "evaluate.dims"),
    "packages.",  # the weights are in the run's folder, what learned of them among them
)
_TRAINED_IMAGES = "trained_images.txt"
# What an earlier start in the same folder may have left: gone before the new run's first file is written.
_OF_ONE_START = (
    "config.toml",
    "best.safetensors",
    "metrics.csv",
    "evaluation.json",
    "bad_batch.txt",
    _TRAINED_IMAGES,
    "own_pairs.msgpack",
)
# What says where an architecture came from, a folder of this machine perhaps, and not what it is.
_ORIGIN_KEYS = ("_name_or_path", "transformers_version")
# Beside transformers' own keys in text_encoder.json: the dense layers after pooling, where there are any.
_DENSE_KEY = "mmalign_dense"
# All that it says of an imported tower, which its source describes.
_IMPORTED_KEY = "mmalign_imported"


class RunFolder(msgspec.Struct, frozen=True):
    """The paths of a run."""

    path: Path

    def file(self, name: str) -> Path:
        """Return the path of one of the run's files."""
        return self.path / name

    def existing(self, name: str) -> Path:
        """Return the path of one of the run's files. Raises CheckpointError when it is not there."""
        path = self.file(name)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: {self.path} is not a run, or was copied in part. Copy it whole.")
        return path


class Run(msgspec.Struct, frozen=True):
    """A run in memory: its folder, its configuration, its model and its tokenizer."""

    folder: RunFolder
    config: Config
    model: DualEncoder
    tokenizer: Tokenizer


def write_trained_images(folder: RunFolder, pairs: Sequence[Pair]) -> None:
    """Write down which images a run learns from, so that an evaluation can tell whether it asks about any of them.

    Raises CheckpointError.
    """
    path = folder.file(_TRAINED_IMAGES)
    with named_writes(path), replacing(path) as temporary:
        lines = (f"{image_identity(pair)}\n" for pair in pairs)
        temporary.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def read_trained_images(folder: RunFolder) -> frozenset[str] | None:
    """Return the identities of the images a run learned from; None for a run of a version that did not keep them."""
    path = folder.file(_TRAINED_IMAGES)
    if not path.is_file():
        return None
    return frozenset(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())


def initial_model(config: Config) -> DualEncoder:
    """Return the model as training starts it: seeded, with the weights asked for, frozen where asked for.

    Raises WeightsError when pretrained weights are not here.
    """
    register_packages(config.packages)
    torch.manual_seed(config.train.seed)
    model = DualEncoder(
        load_image_tower(config.image_tower), load_text_tower(config.text_tower), config.model, config.loss
    )
    return _freeze_as_configured(model, config)


def check_start(config: Config, path: Path, *, resume: bool) -> None:
    """Raise CheckpointError when there is a run at `path` already or, to go on with, one of another configuration."""
    if not resume:
        check_free(path)
    elif keys := [key for key in _differences(config, path) if not key.startswith(_MOVES_NO_NUMBER)]:
        raise CheckpointError(
            f"{path} was trained with another configuration ({', '.join(keys)} differ), so it cannot go on to the "
            f"same numbers. Use {path / 'config.toml'}, or choose another --out."
        )


def open_run(config: Config, path: Path, check: Callable[[Run], None], *, resume: bool) -> Run:
    """Return the run at `path` to go on with, or make one: also after a kill before the first checkpoint.

    `check` sees a new run before anything is written.
    """
    goes_on = resume and (path / "last.safetensors").is_file()
    return join_run(config, path) if goes_on else create_run(config, path, check)


def join_run(config: Config, path: Path) -> Run:
    """Return the run at `path` with what learns at random: of a checkpoint, or of the process that has opened it."""
    run = load_run(path, checkpoint=None)
    return msgspec.structs.replace(run, config=with_pooling(config, run.model.text_tower))


def record_changes(run: Run) -> None:
    """Write the configuration of a run that goes on with other settings."""
    if changed := _differences(run.config, run.folder.path):
        logger.info("%s: going on with other values of %s", run.folder.path, ", ".join(changed))
        write_config(run.folder, run.config)


def _differences(config: Config, path: Path) -> list[str]:
    written = path / "config.toml"
    return differing_keys(load_dumped(written), config) if written.is_file() else []


def check_free(path: Path) -> None:
    """Raise CheckpointError when there is a run at `path` already."""
    if (path / "last.safetensors").exists():
        raise CheckpointError(f"{path} holds a run already. Add --resume to go on with it, or choose another --out.")


@contextlib.contextmanager
def claim_run(path: Path) -> Iterator[None]:
    """Lock a run's folder for this process, made where it is missing; what was made and stays empty is removed.

    The system releases the lock when the process ends, however it ends. Raises InputError when another process has
    it, and CheckpointError when it cannot be written to.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]  # deepest first
    with named_writes(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / LOCK_NAME).touch()
    try:
        with only_writer(path):
            yield
    finally:
        with contextlib.suppress(OSError):  # no longer empty
            for folder in made:
                folder.rmdir()


def create_run(config: Config, path: Path, check: Callable[[Run], None] | None = None) -> Run:
    """Make a run's folder and its first model; `check` sees them before anything is written.

    Raises CheckpointError when there is a run at `path` already, WeightsError, or ConfigError when towers, tokenizer
    and specs do not go together, with nothing written; and CheckpointError when `path` cannot be written to.
    """
    check_free(path)
    register_packages(config.packages)
    check_sentence_modules(sentence_modules(config.text_tower), config.text_tower, config.text)
    model = initial_model(config)
    tokenizer = load_tokenizer(config.text_tower)
    if isinstance(model.text_tower, TextTower):
        check_text_spec(config.text, tokenizer, model.text_tower)
        check_text_tower(model.text_tower, tokenizer, config.text)
    check_image_tower(model.image_tower, config.image.shape, is_trained=config.image_tower.weights != "random")
    if model.attention is not None:
        region_grid(image_tower_with_regions(model.image_tower), config.image.shape)
    check_traceable(model.image_tower, model.text_tower, config.image, config.text)
    torch.manual_seed(config.train.seed)
    adapt_towers(model, config, checked=True)
    config = with_pooling(config, model.text_tower)
    folder = RunFolder(path)
    run = Run(folder, config, model, tokenizer)
    if check is not None:
        check(run)
    with named_writes(path):
        path.mkdir(parents=True, exist_ok=True)
        for name in _OF_ONE_START:
            folder.file(name).unlink(missing_ok=True)
        folder.file("tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        folder.file("text_encoder.json").write_text(_describe_tower(model.text_tower), encoding="utf-8")
        write_tensors(folder.file("frozen.safetensors"), frozen_state(model), {})
    write_config(folder, config)  # last: a folder with a configuration is whole
    return run


def write_config(folder: RunFolder, config: Config) -> None:
    """Write config.toml, whole or not at all. Raises CheckpointError."""
    with named_writes(folder.path), replacing(folder.file("config.toml")) as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")


def with_pooling(config: Config, tower: TextTower | ImportedTextTower) -> Config:
    """Record the pooling that "auto" came to; an imported tower pools as its source does."""
    if isinstance(tower, ImportedTextTower):
        return config
    return msgspec.structs.replace(config, text_tower=msgspec.structs.replace(config.text_tower, pooling=tower.pooling))


def load_run(path: Path, checkpoint: Checkpoint | None = "best") -> Run:
    """Read a run, with the weights of a checkpoint, its average where it has one; None leaves what learns at random.

    Adapters of a checkpoint are merged into the weights beside them.

    Raises CheckpointError when a file is missing or does not fit the configuration.
    """
    folder = RunFolder(path)
    if not folder.file("config.toml").is_file():
        raise CheckpointError(
            f"{path} is not a run: it has no config.toml. Train one with `mmalign train CONFIG --out {path}`."
        )
    config = load_dumped(folder.file("config.toml"))
    text_tower = _text_tower(folder, config)
    model = DualEncoder(create_image_tower(config.image_tower.name), text_tower, config.model, config.loss)
    _freeze_as_configured(model, config)
    adapt_towers(model, config)
    frozen_path = folder.existing("frozen.safetensors")
    copy_state(read_tensors(frozen_path), frozen_state(model), frozen_path)
    if checkpoint is not None:
        checkpoint_path = _checkpoint_path(folder, checkpoint)
        file = read_tensors(checkpoint_path)
        averaged = msgspec.structs.replace(file, tensors=averaged_tensors(file.tensors))
        copy_state(averaged, learned_state(model), checkpoint_path)
        merge_towers(model, config)
        model.join_members()
    model.eval()
    return Run(folder, config, model, _read_tokenizer(folder.existing("tokenizer.json")))


def _text_tower(folder: RunFolder, config: Config) -> TextTower | ImportedTextTower:
    """Return the text tower of a run, its weights to be read; that of an import from where it was imported."""
    path = folder.existing("text_encoder.json")
    return load_text_tower(config.text_tower) if is_imported(config.text_tower.name) else _read_text_tower(path, config)


def describe_encoder(tower: TextTower) -> dict[str, object]:
    """Return the architecture of a text encoder as transformers writes it, without where it came from."""
    config = tower.encoder.config
    kept = {key: value for key, value in config.to_dict().items() if key not in _ORIGIN_KEYS}
    return kept | {"model_type": config.model_type}


def _freeze_as_configured(model: DualEncoder, config: Config) -> DualEncoder:
    towers = ("image", model.image_tower, config.image_tower), ("text", model.text_tower, config.text_tower)
    for name, tower, settings in towers:
        if settings.frozen:
            freeze(tower)
            for parameter in pool_parameters(tower):
                parameter.requires_grad_(True)
        elif settings.frozen_blocks:
            freeze_first_blocks(tower, settings.frozen_blocks, f"{name}_tower.frozen_blocks")
    return model


def _checkpoint_path(folder: RunFolder, checkpoint: Checkpoint) -> Path:
    path = folder.file(f"{checkpoint}.safetensors")
    if path.is_file():
        return path
    fix = f"Go on with `mmalign train {folder.file('config.toml')} --out {folder.path} --resume`"
    if checkpoint == "best" and folder.file("last.safetensors").is_file():
        fix += ", or take --checkpoint last"
    raise CheckpointError(f"{path} is missing: the run has not come to its first {checkpoint} checkpoint. {fix}.")


def _describe_tower(tower: TextTower | ImportedTextTower) -> str:
    if isinstance(tower, ImportedTextTower):
        return json.dumps({_IMPORTED_KEY: tower.definition()}, indent=2) + "\n"
    contents = describe_encoder(tower)
    if tower.dense_layers:
        contents[_DENSE_KEY] = msgspec.to_builtins(tower.dense_layers)
    return json.dumps(contents, indent=2, sort_keys=True) + "\n"


def _read_text_tower(path: Path, config: Config) -> TextTower:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        dense = msgspec.convert(described.pop(_DENSE_KEY, ()), tuple[DenseLayer, ...])
        architecture = transformers.AutoConfig.for_model(**described)
        return create_text_tower(architecture, config.text_tower.pooling, dense)
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise CheckpointError(f"{path} describes no text encoder: {error}. Restore it, or train again.") from error


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception for every fault in the file
        raise CheckpointError(f"{path} is not a tokenizer.json: {error}. Restore it, or train again.") from error

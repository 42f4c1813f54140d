"""The training configuration: one TOML file into typed structs, each defined beside what it configures.

Unknown keys are refused with the nearest known one, since a misspelt key that is ignored costs a training run.
"""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import tomli_w

from mmalign.checkpoints.averaging import AnyAverage, NoAverage
from mmalign.config.data import DataConfig
from mmalign.config.keys import check_keys
from mmalign.config.moved_keys import move_keys
from mmalign.data.augment import AugmentConfig
from mmalign.errors import ConfigError
from mmalign.hard_batches import MiningConfig
from mmalign.losses import AnyLossConfig, AnyTerm
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.term import Term
from mmalign.model import ModelConfig
from mmalign.optim import OptimConfig
from mmalign.pixels.preprocess import check_image_spec
from mmalign.towers.text import TextTowerConfig
from mmalign.towers.vision import ImageTowerConfig
from mmalign.towers.weights import PackagedWeights
from mmalign_runtime.spec import ImageSpec, TextSpec

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
SomeTerm = TypeVar("SomeTerm", bound=Term)


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to train, in which batches, on which device, and where features of frozen towers are kept.

    Attributes:
        epochs: Passes over the training pairs.
        batch_size: Pairs in a batch. The other pairs of a batch are an item's negatives.
        chunk_size: Pairs of a batch that go through a tower that learns at a time, for batches larger than memory. The
            gradients are those of the whole batch (GradCache); towers run forward twice. 0: all at once.
        seed: Seed of every permutation, augmentation, caption draw and dropout mask.
        device: "auto" takes CUDA where there is a GPU, else the CPU.
        autocast: Precision of matrix products in training: float32 ("off"), bfloat16 or float16.
        compile: Whether towers go through torch.compile.
        cache_dir: Folder for the features of frozen towers.
        num_views: Augmented views of each image, beside the clean one, whose features are cached for a frozen image
            tower.
        num_workers: Processes that decode images, at most 1024. 0 decodes in the training process.
        validate_every: Epochs between two validations. A checkpoint follows each.
        checkpoint_minutes: Minutes of work, about, that a kill may cost: checkpoints come at least this often.
    """

    epochs: Positive = 10
    batch_size: Annotated[int, msgspec.Meta(ge=2)] = 256
    chunk_size: Natural = 0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    autocast: Literal["off", "bf16", "fp16"] = "off"
    compile: bool = False
    cache_dir: str = ".cache/mmalign"
    num_views: Natural = 0
    num_workers: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    validate_every: Positive = 1
    checkpoint_minutes: Annotated[float, msgspec.Meta(ge=0)] = 2.0


class EvaluateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a caption, and how the names of classes become texts.

    Attributes:
        captions: "first" takes the first caption of each pair, of each language where they are named; "all" every one.
        templates: Texts for zero-shot classification. Each holds `{}`, for the name of the class.
        dims: Numbers of first components whose recall is measured too, beside those of the term "matryoshka".
    """

    captions: Literal["first", "all"] = "all"
    templates: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("{}", "a picture of {}", "an image showing {}")
    dims: tuple[Positive, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a template that gives every class the same words."""
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(f"template {template!r} has no {{}} for the name of the class; add it")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides a training run.

    Attributes:
        data: The pairs and their split.
        image: How files become pixels.
        text: How texts become tokens.
        image_tower: The image tower and its weights.
        text_tower: The text tower and its weights.
        model: The shared space.
        loss: What is learned from a batch, and how cosines are read.
        terms: What is added to the loss, each kind once.
        mining: Hard negatives.
        augment: How training images and captions vary.
        optim: The optimizer.
        average: The average of the weights over training that is validated and exported in their place.
        train: How long, in which batches and where to train.
        evaluate: What `mmalign evaluate` measures.
        packages: The PyPI packages that "pypi:" names stand for: tables, or the path of a TOML file of them.
    """

    data: DataConfig
    image: ImageSpec = ImageSpec()
    text: TextSpec = TextSpec()
    image_tower: ImageTowerConfig = ImageTowerConfig()
    text_tower: TextTowerConfig = TextTowerConfig()
    model: ModelConfig = ModelConfig()
    loss: AnyLossConfig = InfoNCEConfig()
    terms: tuple[AnyTerm, ...] = ()
    mining: MiningConfig = MiningConfig(share=0.0)
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    average: AnyAverage = NoAverage()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    packages: dict[str, PackagedWeights] = {}

    def __post_init__(self) -> None:
        """Raise ValueError for an image spec that no graph can follow, or terms that do not fit the rest."""
        if self.image.resize == "naflex":
            raise ValueError(
                "resize 'naflex' gives patches at a picture's own ratio, which no tower is trained on: towers here "
                "learn from pixels of one size. Take another resize, or a model of a fixed size to begin from"
            )
        check_image_spec(self.image)
        kinds = [term.__struct_config__.tag for term in self.terms]
        if twice := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise ValueError(f"terms has several of kind {sorted(map(str, twice))[0]!r}; keep one of a kind")
        if (widest := max(self.prefix_dims, default=0)) >= self.model.embed_dim:
            raise ValueError(
                f"a prefix of {widest} components is not shorter than model.embed_dim, {self.model.embed_dim}; leave "
                "it out of the dims of the term 'matryoshka'"
            )
        is_cached = self.image_tower.frozen and not any(source.stream for source in self.data.sources)
        if self.term(IntraModal) and is_cached and not self.train.num_views:
            raise ValueError(
                "the term 'intra_modal' needs views of the images, and a frozen image tower has those that are cached. "
                "Set train.num_views to 1 or more"
            )
        if self.data.split.max_caption_similarity is not None and not self.text_tower.frozen:
            raise ValueError(
                "data.split.max_caption_similarity compares captions by a text tower that stands still. Set "
                "text_tower.frozen to true, or leave it out"
            )

    def term(self, kind: type[SomeTerm]) -> SomeTerm | None:
        """Return the term of a kind, or None."""
        return next((term for term in self.terms if isinstance(term, kind)), None)

    @property
    def prefix_dims(self) -> tuple[int, ...]:
        """Return how many first components of a vector are trained to be one too, shortest first; not the whole."""
        matryoshka = self.term(Matryoshka)
        return tuple(sorted(matryoshka.dims)) if matryoshka else ()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from a TOML file.

    Args:
        path: The file. Paths of data in it stay as written: relative to the folder that the command runs in.
        overrides: Values that take the place of the file's, such as "train.epochs=5".

    Returns:
        The configuration, what the file leaves out at its default.

    Raises:
        ConfigError: The file is missing or not TOML, a key is unknown (the message names the nearest) or a value is not
            possible (it names the field).

    Example:
        >>> load_config("train.toml", ["train.epochs=5"]).train.epochs  # doctest: +SKIP
        5
    """
    settings = _read_toml(Path(path))
    for override in overrides:
        _apply(settings, override)
    return parse_config(settings, str(path))


def load_dumped(path: Path) -> Config:
    """Read the configuration that a run wrote when it began. Raises ConfigError as `load_config` does.

    Every default is written out there, so a field that is missing came later: it gets the value that means what was
    done before, not the default of today.
    """
    settings = _read_toml(path)
    image = settings.setdefault("image", {})
    if isinstance(image, dict):
        image.setdefault("jpeg_oversampling", 0)  # JPEGs were decoded in full
    text_tower = settings.setdefault("text_tower", {})
    if isinstance(text_tower, dict):
        text_tower.setdefault("pooling", "cls")  # the default before "auto"
    return parse_config(settings, str(path))


def parse_config(settings: dict[str, Any], origin: str) -> Config:
    """Turn TOML's tables into a Config. Raises ConfigError, naming `origin` and the field."""
    settings = copy.deepcopy(settings)
    if isinstance(packages := settings.get("packages"), str):
        settings["packages"] = _read_toml(Path(packages))
    move_keys(settings, origin)
    check_keys(Config, settings, origin, "")
    _check_finite(settings, origin)
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.train.epochs`": the field is said as it is spelled in TOML and in --set.
        raise ConfigError(f"{origin}: {str(error).replace('`$.', '`')}.") from error


def dump_config(config: Config) -> str:
    """Return the configuration as TOML, every default written out."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def differing_keys(recorded: Config, wanted: Config) -> list[str]:
    """Return the keys, such as train.epochs, whose values differ between a run's configuration and another.

    A pooling that is left to the tower ("auto") agrees with what the run took.
    """
    first, second = _flat(msgspec.to_builtins(recorded)), _flat(msgspec.to_builtins(wanted))
    differing = {key for key in first | second if first.get(key) != second.get(key)}
    if wanted.text_tower.pooling == "auto":
        differing.discard("text_tower.pooling")
    return sorted(differing)


def _check_finite(settings: dict[str, Any], origin: str) -> None:
    """Raise ConfigError, naming the key, for a number that is infinite or not a number: TOML can say both."""
    for key, value in _flat(settings).items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ConfigError(f"{origin}: {key} is {value}, expected a finite number.")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}. Give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _apply(settings: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise ConfigError(f"--set {override!r}: expected KEY=VALUE, such as train.epochs=5.")
    *tables, last = key.strip().split(".")
    table = settings
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {name!r} is a value, not a table; lists are set whole.")
    table[last] = _parse_value(text.strip())


def _parse_value(text: str) -> object:
    """Read a value as TOML, and as plain text where it is none: `optim.name=adamw` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _without_none(value: Any) -> Any:  # noqa: ANN401 - TOML has no null: what is absent is left out
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value

"""The options of every verb that loads towers, made of the fields of RuntimeConfig, and what they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import msgspec
import typer

from mmalign_runtime.cli.options import one_of
from mmalign_runtime.config import CHOICES, MOST_THREADS, RuntimeConfig, RuntimeFields, configured
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    from mmalign_runtime.embedder import Embedder

_COUNTS = ("num_threads", "dim")
# Batch sizes are options of the verbs that have batches.
_OPTIONS = {
    "engine": "--engine",
    "provider": "--provider",
    "precision": "--precision",
    "num_threads": "--threads",
    "dim": "--dim",
    "allow_spinning": "--allow-spinning/--no-allow-spinning",
    "allow_tf32": "--allow-tf32/--no-allow-tf32",
    "cache": "--cache/--no-cache",
}
_PANEL = "How the towers run"
_PROFILE = typer.Option(
    metavar="FILE",
    help="What `bench --save-profile` wrote: it stands in for the defaults of these options.",
    show_default=False,
    rich_help_panel=_PANEL,
)


class Loading(msgspec.Struct, frozen=True):
    """What was asked for: some fields of the config, and a profile for the others."""

    fields: RuntimeFields = RuntimeFields()
    profile: Path | None = None

    def load(self, bundle: Path, towers: Sequence[Modality] = ("image", "text")) -> Embedder:
        """Return the embedder. Raises as `Embedder.load` does."""
        from mmalign_runtime.embedder import Embedder

        return Embedder.load(bundle, profile=self.profile, towers=towers, **self.fields)

    def config(self) -> RuntimeConfig:
        """Return the whole config. Raises ProfileError when the profile cannot be read."""
        from mmalign_runtime.profile import load_profile

        return configured(None if self.profile is None else load_profile(self.profile), self.fields)

    def replacing(self, fields: RuntimeFields) -> Loading:
        """Return the same with other fields; None leaves one as it is."""
        given = {name: value for name, value in fields.items() if value is not None}
        return Loading(cast("RuntimeFields", {**self.fields, **given}), self.profile)


def takes_config(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb, in the place of its parameter `asked`, the options that such a Loading is made of.

    The verb raises InputError for a word that is not known.
    """

    @wraps(verb)
    def with_options(**words: Any) -> None:  # noqa: ANN401  typer's values, of any type
        fields = {name: words.pop(name) for name in _OPTIONS}
        for name, choices in CHOICES.items():
            if fields[name] is not None:
                one_of(fields[name], choices, _OPTIONS[name])
        asked = Loading(cast("RuntimeFields", fields), words.pop("profile"))
        verb(**words, asked=asked)

    signature = inspect.signature(verb, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for each in signature.parameters.values():
        parameters += _parameters() if each.name == "asked" else [each]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_options


def _parameters() -> list[inspect.Parameter]:
    hints, defaults = get_type_hints(RuntimeConfig, include_extras=True), RuntimeConfig()
    found = {"profile": Annotated[Path | None, _PROFILE]}
    for name, words in _OPTIONS.items():
        default, says = getattr(defaults, name), hints[name].__metadata__[0].description
        least, most = 1 if name in _COUNTS else None, MOST_THREADS if name == "num_threads" else None
        help_text = f"{says} Default: {default}." if isinstance(default, str) else says
        option = typer.Option(words, min=least, max=most, help=help_text, show_default=False, rich_help_panel=_PANEL)
        kind = str if isinstance(default, str) else int if name in _COUNTS else bool
        found[name] = Annotated[kind | None, option]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, keyword, default=None, annotation=hint) for name, hint in found.items()]

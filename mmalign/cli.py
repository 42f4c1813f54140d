"""The verbs that mmalign adds to the command line: train and evaluate. torch is imported only when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from mmalign.openmp import wait_without_spinning
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError
from mmalign_runtime.spec import SPEC_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from mmalign.scores import BundleScores, Evaluation, Scored
    from mmalign_runtime.config import ComputePrecision


def register(app: typer.Typer) -> None:
    """Add the verbs to the `mmalign` command."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/latest"),
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override, such as train.epochs=5.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a dual encoder on image-text pairs, also by several processes that `torchrun -m mmalign train` starts."""
    wait_without_spinning()
    from mmalign.config import load_config
    from mmalign.distributed import is_first_process
    from mmalign.progress import log_to_stderr
    from mmalign.training import train as run_training

    log_to_stderr("mmalign")
    result = run_training(load_config(config, settings or []), out, resume=resume)
    if is_first_process():
        best = f"best validation score {result.best_score:.3f} at step {result.best_step}"
        say(f"{out}: {result.num_steps} steps, {best}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder; or, with --pairs, a bundle.", show_default=False)],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="best or last.")] = "best",
    pairs: Annotated[str | None, typer.Option(help="Pairs to measure a bundle on.")] = None,
    precision: Annotated[str, typer.Option(help="Of a bundle: the files to measure.")] = "fp32",
    group_column: Annotated[str | None, typer.Option(help="Of a bundle's pairs: the column with a class.")] = None,
    templates: Annotated[
        list[str] | None, typer.Option("--template", help="Of a bundle: a text with {} for the name of a class.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Recall both ways and zero-shot classes, beside chance and, for a run, a closed-form linear map."""
    if pairs is not None:
        _evaluate_bundle(run, pairs, group_column, precision, tuple(templates or ()), as_json=json)
        return
    if run.suffix == ARCHIVE_SUFFIX or (run / SPEC_NAME).is_file():
        raise InputError(f"{run} is a bundle, and says nothing of its data. Name pairs to measure it on with --pairs.")
    split_name = cast('Literal["val", "test"]', _one_of(split, ("test", "val"), "--split"))
    checkpoint_name = cast('Literal["best", "last"]', _one_of(checkpoint, ("best", "last"), "--checkpoint"))
    wait_without_spinning()
    from mmalign.evaluation import evaluate as run_evaluation
    from mmalign.progress import log_to_stderr

    log_to_stderr("mmalign")
    evaluation = run_evaluation(run, split=split_name, checkpoint=checkpoint_name)
    if json:
        typer.echo((run / "evaluation.json").read_bytes())
    else:
        print_evaluation(evaluation)


def _evaluate_bundle(
    bundle: Path, pairs: str, group_column: str | None, precision: str, templates: tuple[str, ...], *, as_json: bool
) -> None:
    wait_without_spinning()
    import msgspec

    from mmalign.bundle_evaluation import evaluate_bundle
    from mmalign.config import EvaluateConfig
    from mmalign.data import DataSource
    from mmalign.progress import log_to_stderr

    log_to_stderr("mmalign")
    config = EvaluateConfig(templates=templates) if templates else EvaluateConfig()
    known = cast("ComputePrecision", _one_of(precision, ("fp32", "fp16", "int8", "bf16"), "--precision"))
    scores = evaluate_bundle(bundle, DataSource(path=pairs, group_column=group_column), config, precision=known)
    if as_json:
        typer.echo(msgspec.json.encode(scores))
    else:
        print_bundle_scores(scores)


def print_bundle_scores(scores: BundleScores) -> None:
    """Print a table of the bundle's figures beside chance."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{scores.space_id}, {scores.precision}", highlight=False)
    console.print(f"{scores.num_images} images, {scores.num_captions} captions", highlight=False)
    table = Table("", "")
    for method in ("bundle", "chance"):
        table.add_column(method, justify="right")
    _add_rows(table, (scores.model, scores.chance), scores.num_classes)
    console.print(table)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print a table a source: methods side by side, so that it fits 80 columns and shows at once who is ahead."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for scores in evaluation.sources:
        source = Text.assemble((scores.source, "bold"), ", held out of training" if scores.is_held_out else "")
        console.print(source, soft_wrap=True)
        console.print(
            f"{evaluation.split}: {scores.num_images} images of unseen concepts, {scores.num_captions} captions",
            soft_wrap=True,
            highlight=False,
        )
        table = Table("", "")
        for method in ("trained", "linear map", "chance"):
            table.add_column(method, justify="right")
        _add_rows(table, (scores.model, scores.linear_map, scores.chance), scores.num_classes)
        console.print(table)


def _add_rows(table: Table, methods: Sequence[Scored], num_classes: int) -> None:
    for direction, found in (
        ("image to text", [method.image_to_text for method in methods]),
        ("text to image", [method.text_to_image for method in methods]),
    ):
        table.add_row(direction, "recall@1", *(f"{recall.at_1:.3f}" for recall in found))
        table.add_row("", "recall@5", *(f"{recall.at_5:.3f}" for recall in found))
        table.add_row("", "recall@10", *(f"{recall.at_10:.3f}" for recall in found))
        table.add_row("", "median rank", *(f"{recall.median_rank:.0f}" for recall in found), end_section=True)
    if num_classes:
        shares = [method.zero_shot_accuracy or 0.0 for method in methods]
        table.add_row(f"{num_classes} classes", "accuracy", *(f"{share:.3f}" for share in shares))


def _one_of(word: str, choices: tuple[str, ...], option: str) -> str:
    if word not in choices:
        raise InputError(f"{option} {word!r} is not known; choose one of {', '.join(choices)}.")
    return word

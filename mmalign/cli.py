"""The verbs that mmalign adds to the command line: train and evaluate. torch is imported only when one of them runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

if TYPE_CHECKING:
    from mmalign.evaluate import Evaluation, Scored


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
    """Train a dual encoder on image-text pairs."""
    from mmalign.config import load_config
    from mmalign.train import train as run_training

    _log_to_stderr()
    result = run_training(load_config(config, settings or []), out, resume=resume)
    print(f"{out}: {result.num_steps} steps, best validation score {result.best_score:.3f} at step {result.best_step}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="best or last.")] = "best",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Recall both ways and zero-shot classes, beside chance and a closed-form linear map."""
    from mmalign.evaluate import evaluate as run_evaluation

    _log_to_stderr()
    evaluation = run_evaluation(
        run,
        split=cast('Literal["val", "test"]', _one_of(split, ("test", "val"), "--split")),
        checkpoint=cast('Literal["best", "last"]', _one_of(checkpoint, ("best", "last"), "--checkpoint")),
    )
    if json:
        print((run / "evaluation.json").read_text())
    else:
        print_evaluation(evaluation)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print a table a source."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for scores in evaluation.sources:
        seen = "style held out of training" if scores.is_held_out else "style seen in training"
        table = Table(
            title=f"{scores.source} ({seen}), {evaluation.split}: {scores.num_images} images of unseen concepts, "
            f"{scores.num_captions} captions",
            title_justify="left",
        )
        for column in ("", "image to text @1", "@5", "@10", "median", "text to image @1", "@5", "@10", "median", "classes"):
            table.add_column(column, justify="left" if not column else "right")
        for name, scored in (("trained", scores.model), ("linear map", scores.linear_map), ("chance", scores.chance)):
            table.add_row(name, *_cells(scored))
        console.print(table)


def _cells(scored: Scored) -> list[str]:
    cells = []
    for found in (scored.image_to_text, scored.text_to_image):
        cells += [f"{share:.3f}" for share in (found.at_1, found.at_5, found.at_10)] + [f"{found.median_rank:.0f}"]
    return [*cells, "" if scored.zero_shot_accuracy is None else f"{scored.zero_shot_accuracy:.3f}"]


def _one_of(word: str, choices: tuple[str, ...], option: str) -> str:
    if word not in choices:
        raise typer.BadParameter(f"{word!r} is not known; choose one of {', '.join(choices)}.", param_hint=option)
    return word


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)

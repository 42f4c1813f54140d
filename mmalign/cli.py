"""The verbs that mmalign adds to the command line: train and evaluate. torch is imported only when one of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, cast

import typer

from mmalign.cpu import importing_torch, keep_freed_memory
from mmalign_runtime.bundle import is_bundle
from mmalign_runtime.cli.options import one_of
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    keep_freed_memory()
    with importing_torch():
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
    image_column: Annotated[str, typer.Option(help="Of a bundle's pairs: the column with the image.")] = "image",
    image_root: Annotated[Path | None, typer.Option(help="Of a bundle's pairs: where relative paths start.")] = None,
    caption_columns: Annotated[
        list[str] | None,
        typer.Option("--caption-column", help="Of a bundle's pairs: a column of captions, or LANGUAGE=COLUMN."),
    ] = None,
    concept_column: Annotated[str | None, typer.Option(help="Of a bundle's pairs: the column with a concept.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Of a bundle's pairs: the column with a class.")] = None,
    templates: Annotated[
        list[str] | None, typer.Option("--template", help="Of a bundle: a text with {} for the name of a class.")
    ] = None,
    dims: Annotated[
        list[int] | None, typer.Option("--dim", min=1, help="Recall of that many first components, too.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An .html file to write, with pictures.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Recall both ways and zero-shot classes, beside chance and, for a run, a closed-form linear map."""
    _check_report(report)
    images = {"--image-column": image_column != "image", "--image-root": image_root}
    columns = {"--caption-column": caption_columns, "--concept-column": concept_column, "--group-column": group_column}
    of_pairs = {**images, **columns, "--template": templates, "--precision": precision != "fp32"}
    _check_fitting(pairs, of_pairs, {"--split": split != "test", "--checkpoint": checkpoint != "best"})
    if pairs is not None:
        captions = _caption_columns(caption_columns or ["caption"])
        root = None if image_root is None else str(image_root)
        source = BundlePairs(pairs, image_column, root, captions, concept_column, group_column)
        _evaluate_bundle(run, source, precision, tuple(templates or ()), tuple(dims or ()), report, as_json=json)
    else:
        _evaluate_run(run, split, checkpoint, tuple(dims or ()), report, as_json=json)


def _check_run(path: Path) -> None:
    if is_bundle(path):
        raise InputError(f"{path} is a bundle, and says nothing of its data. Name pairs to measure it on with --pairs.")


def _check_report(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report {path} ends in {path.suffix!r}, expected .html. Choose such a name.")
    check_place(path)


def _check_fitting(pairs: str | None, of_pairs: Mapping[str, object], of_runs: Mapping[str, object]) -> None:
    """Raise InputError for options that were given and would not be read."""
    unread, how = (of_pairs, "without") if pairs is None else (of_runs, "with")
    if given := [name for name, value in unread.items() if value]:
        raise InputError(f"{', '.join(given)} say nothing {how} --pairs: --pairs measures a bundle, else it is a run.")


class BundlePairs(NamedTuple):
    """The pairs to measure a bundle on, as they were asked for."""

    path: str
    image_column: str
    image_root: str | None
    caption_columns: tuple[str, ...] | dict[str, tuple[str, ...]]
    concept_column: str | None
    group_column: str | None


def _evaluate_run(
    run: Path, split: str, checkpoint: str, dims: tuple[int, ...], report: Path | None, *, as_json: bool
) -> None:
    _check_run(run)
    split_name = cast('Literal["val", "test"]', one_of(split, ("test", "val"), "--split"))
    checkpoint_name = cast('Literal["best", "last"]', one_of(checkpoint, ("best", "last"), "--checkpoint"))
    keep_freed_memory()
    with importing_torch():
        from mmalign.evaluation import evaluate as run_evaluation
        from mmalign.evaluation.table import print_evaluation
        from mmalign.progress import log_to_stderr
        from mmalign.report import pictures_of, report_run

    log_to_stderr("mmalign")
    seen, show = pictures_of(report)
    found = run_evaluation(run, split=split_name, checkpoint=checkpoint_name, dims=dims, show=show)
    if report is not None:
        report_run(report, run, found, seen)
    if as_json:
        typer.echo((run / "evaluation.json").read_bytes())
    else:
        print_evaluation(found)


def _evaluate_bundle(
    bundle: Path,
    pairs: BundlePairs,
    precision: str,
    templates: tuple[str, ...],
    dims: tuple[int, ...],
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    with importing_torch():
        import msgspec

        from mmalign.config import EvaluateConfig
        from mmalign.data import DataSource
        from mmalign.evaluation.of_bundle import evaluate_bundle
        from mmalign.evaluation.table import print_bundle_scores
        from mmalign.progress import log_to_stderr
        from mmalign.report import pictures_of, report_bundle

    log_to_stderr("mmalign")
    try:
        asked = EvaluateConfig(dims=dims, templates=templates or EvaluateConfig().templates)
    except ValueError as error:
        raise InputError(f"--template: {error}.") from error
    known = cast("ComputePrecision", one_of(precision, ("fp32", "fp16", "int8", "bf16"), "--precision"))
    seen, show = pictures_of(report)
    found = evaluate_bundle(bundle, DataSource(**pairs._asdict()), asked, show, precision=known)
    if report is not None:
        report_bundle(report, bundle, found, seen)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        print_bundle_scores(found)


def _caption_columns(words: Sequence[str]) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """Return columns, or columns by language where LANGUAGE=COLUMN was said. Raises InputError where only some say."""
    parted = [word.partition("=") for word in words]
    if not any(sign for _, sign, _ in parted):
        return tuple(words)
    columns: dict[str, tuple[str, ...]] = {}
    for language, sign, name in parted:
        if not (language and sign and name):
            raise InputError(
                f"--caption-column {language}{sign}{name}: expected LANGUAGE=COLUMN for each column, such as de=titel."
            )
        columns[language] = (*columns.get(language, ()), name)
    return columns

"""The demo: align two pretrained towers on emoji drawings, export them, prove the export, search with it and time it.

python benchmarks/demo/run.py --out demo

Each step is a command you could type yourself, shown as it runs. What it makes lies below --out; the report is
report.html there.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from typer import Option

from benchmarks.demo.drawings import Drawing, read_attributions, read_test_drawings, write_drawings, write_labels
from benchmarks.demo.queries import IMAGE_QUERIES, TEXT_QUERIES, TOP_K
from benchmarks.demo.report import headline_figures, write_report
from benchmarks.demo.results import (
    DemoResults,
    GoldenImage,
    Step,
    TextSearch,
    found_drawings,
    image_search,
    read_curve,
    read_found,
)
from benchmarks.harness.command import run
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import read_result
from mmalign.config import load_config
from mmalign.figures.scores import Evaluation
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.errors import MmalignError
from mmalign_runtime.verify import VerifyReport

CONFIG = Path("benchmarks/demo/demo.toml")
_MARKER = ".mmalign-demo"
_CACHE = "cache"  # kept from run to run: features of frozen towers do not change
_NUM_STEPS = 10
# A quarter of the default: a demo wants a first impression, and the images include one of 12 megapixels.
_BENCH_ROUNDS = 5
_NUM_NAMES = 3
_BY_TEXT, _BY_IMAGE, _NAMES = "text_search.json", "image_search.json", "names.json"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class DemoError(Exception):
    """The demo cannot go on; the message says what was seen and what to do."""


class Stage:
    """Runs the demo's commands as a user would type them: each is shown, timed, and stops the demo when it fails."""

    def __init__(self, console: Console) -> None:
        self.steps: list[Step] = []
        self._console = console
        self._mmalign = Path(sys.executable).with_name("mmalign")
        if not self._mmalign.is_file():
            raise DemoError(
                f"{self._mmalign} is not there: mmalign is not installed in this environment. Run `make demo`."
            )

    def run(self, title: str, *arguments: str | Path | int, to_file: Path | None = None) -> None:
        """Run `mmalign` with these arguments, its output to the terminal or to a file. Raises DemoError."""
        words, number = [str(word) for word in arguments], len(self.steps) + 1
        command = shlex.join(["mmalign", *words]) + (f" > {shlex.quote(str(to_file))}" if to_file else "")
        self._console.print()
        self._console.rule(f"[bold]{number}/{_NUM_STEPS}  {title}[/]", align="left", style="dim")
        self._console.print(f"[cyan]$ {command}[/]", soft_wrap=True, highlight=False, emoji=False)
        started = time.perf_counter()
        # stdout and stderr are handed on, not read: a command shows its bars and colours only to a terminal.
        with to_file.open("wb") if to_file else nullcontext() as file:
            exit_code = subprocess.run([self._mmalign, *words], stdout=file, check=False).returncode
        if exit_code:
            raise DemoError(f"step {number}, {title.lower()}, ended with exit code {exit_code}: {command}")
        self.steps.append(Step(title, command, time.perf_counter() - started))
        self._console.print(f"[green]done[/] in {self.steps[-1].seconds:.1f} s")


def main(out: Annotated[Path, Option(help="where everything goes")] = Path("demo")) -> None:
    """Run the demo; any failure is one line of error and an exit code that is not 0."""
    out = out.resolve()
    os.chdir(ROOT)  # where the paths in demo.toml start
    console = Console()
    started = time.perf_counter()
    try:
        prepare(out)
        results = run_demo(out.relative_to(ROOT) if out.is_relative_to(ROOT) else out, console)
        report = write_report(results, out / "report.html")
    except (DemoError, MmalignError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        raise SystemExit(EXIT_INTERRUPTED) from error
    _print_end(console, report, results, time.perf_counter() - started)


def prepare(out: Path) -> None:
    """Empty the demo's folder, all but the cache. Raises DemoError when it holds something that is not the demo's."""
    marker = out / _MARKER
    if out.exists() and not out.is_dir():
        raise DemoError(f"{out} is a file. Choose a folder for --out.")
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise DemoError(f"{out} holds files that no demo made, and would be emptied. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for path in out.iterdir():
        if path.name in (_CACHE, _MARKER):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def run_demo(out: Path, console: Console) -> DemoResults:
    """Run every step and gather what the report shows. The working directory is the repository's root."""
    data = load_config(CONFIG).data
    drawings = read_test_drawings(data)
    write_drawings(drawings, out / "drawings")
    labels = write_labels(drawings, out / "labels.txt")
    queries = query_drawings(drawings)
    stage = Stage(console)
    _make(stage, out)
    _search(stage, out, [str(out / "drawings" / query.name) for query in queries])
    words = ("--only", "stages", "--rounds", _BENCH_ROUNDS, "--json", out / "bench.json")
    stage.run("Time each stage", "bench", out / "bundle", *words)

    by_name = {drawing.name: drawing for drawing in drawings}
    searched, similar, named = (read_found(out / name) for name in (_BY_TEXT, _BY_IMAGE, _NAMES))
    bundle = open_bundle(out / "bundle")
    return DemoResults(
        steps=tuple(stage.steps),
        curve=read_curve(out / "run" / "metrics.csv"),
        evaluation=read_result(out / "run/evaluation.json", Evaluation),
        text_searches=tuple(
            TextSearch(query.text, found_drawings(found.hits, by_name, query.labels))
            for query, found in zip(TEXT_QUERIES, searched, strict=True)
        ),
        image_searches=tuple(
            image_search(query, names, found, labels, by_name)
            for query, names, found in zip(queries, named, similar, strict=True)
        ),
        num_drawings=len(drawings),
        verification=read_result(out / "verify.json", VerifyReport),
        golden=tuple(
            GoldenImage(case.name, bundle.path / case.file, case.width, case.height)
            for case in load_golden(bundle).images
        ),
        bench=read_result(out / "bench.json", BenchReport),
        provenance=bundle.spec.provenance,
        attributions=read_attributions(data),
    )


def _make(stage: Stage, out: Path) -> None:
    run, bundle, cache = out / "run", out / "bundle", f"train.cache_dir={out / _CACHE}"
    stage.run("Train", "train", CONFIG, "--out", run, "--set", cache)
    stage.run("Evaluate on unseen concepts", "evaluate", run, "--report", out / "evaluation.html")
    stage.run("Export to ONNX", "export", run, "--out", bundle)
    stage.run("Verify against PyTorch", "verify", bundle, "--json", to_file=out / "verify.json")


def _search(stage: Stage, out: Path, files: Sequence[str]) -> None:
    bundle, drawings, labels = out / "bundle", out / "drawings.parquet", out / "labels.parquet"
    stage.run("Embed the drawings", "embed", bundle, out / "drawings", "--out", drawings)
    stage.run("Embed their names", "embed", bundle, out / "labels.txt", "--kind", "text", "--out", labels)

    def search(title: str, to_file: str, *arguments: str | Path | int) -> None:
        stage.run(title, "search", bundle, *arguments, "--json", to_file=out / to_file)

    search("Search drawings by text", _BY_TEXT, drawings, *(query.text for query in TEXT_QUERIES), "--top-k", TOP_K)
    # One more than is shown: a drawing finds itself first.
    search("Search drawings by drawing", _BY_IMAGE, drawings, *files, "--image", "--top-k", TOP_K + 1)
    search("Name drawings", _NAMES, labels, *files, "--image", "--top-k", _NUM_NAMES)


def query_drawings(drawings: Sequence[Drawing]) -> tuple[Drawing, ...]:
    """Return the drawings that are searched with."""
    found = {(drawing.style, drawing.label): drawing for drawing in drawings}
    return tuple(found[query.style, query.label] for query in IMAGE_QUERIES)


def _print_end(console: Console, report: Path, results: DemoResults, seconds: float) -> None:
    console.print()
    console.rule(f"[bold]All done in {seconds:.0f} s[/]", align="left", style="green")
    for figure in headline_figures(results):
        console.print(f"  [bold]{figure.value:>9}[/]  {figure.caption}", highlight=False, soft_wrap=True)
    console.print(f"\nOpen [bold]{report}[/]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run(main)

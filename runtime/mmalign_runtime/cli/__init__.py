"""The `mmalign` command line: one file a verb, and one way out for errors.

Nothing heavy is imported before a verb runs, so that `mmalign --help` answers at once.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from mmalign_runtime.cli.bench import bench
from mmalign_runtime.cli.embed import embed
from mmalign_runtime.cli.info import info
from mmalign_runtime.cli.pack import pack, unpack
from mmalign_runtime.cli.search import search
from mmalign_runtime.cli.verbs import load_verbs
from mmalign_runtime.cli.verify import verify
from mmalign_runtime.errors import MmalignError

EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="mmalign",
    help="Train an image-text dual encoder, export it once, and get the same vectors everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (info, verify, embed, search, bench, pack, unpack):
    app.command()(verb)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 with one line of error on stderr when it cannot run, 130 interrupted."""
    try:
        load_verbs(app)
        app(args, prog_name="mmalign")
    except MmalignError as error:
        _print_error(error)
        raise SystemExit(EXIT_CANNOT_RUN) from error
    except KeyboardInterrupt as error:
        raise SystemExit(EXIT_INTERRUPTED) from error
    except OSError as error:
        _print_error(MmalignError(f"{error.filename or 'the output'}: {error.strerror or error}. Check it."))
        raise SystemExit(EXIT_CANNOT_RUN) from error
    except Exception:  # noqa: BLE001  a fault of ours: told in full, and never taken for the 1 that says a bundle differs
        traceback.print_exc()
        raise SystemExit(EXIT_CANNOT_RUN) from None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mmalign {version('mmalign-runtime')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _print_error(error: MmalignError) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(("error: ", "bold red"), (" ".join(str(error).split()), "red"))
    Console(stderr=True).print(line, soft_wrap=True)

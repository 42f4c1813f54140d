"""The `mmalign` command line: one file a verb, and one way out for errors.

Nothing heavy is imported before a verb runs, so that `mmalign --help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from mmalign_runtime.cli.bench import bench
from mmalign_runtime.cli.embed import embed
from mmalign_runtime.cli.explain import explain
from mmalign_runtime.cli.info import info
from mmalign_runtime.cli.interrupts import stop_on_signals
from mmalign_runtime.cli.pack import pack, unpack, upgrade
from mmalign_runtime.cli.search import search
from mmalign_runtime.cli.terminal import discard_what_is_left, escape_what_does_not_fit
from mmalign_runtime.cli.usage import UsageError, refusal, refuse_empty_paths
from mmalign_runtime.cli.verbs import load_verbs
from mmalign_runtime.cli.verify import verify
from mmalign_runtime.errors import MmalignError
from mmalign_runtime.names import printable

EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it: what typer makes of every KeyboardInterrupt
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE

app = typer.Typer(
    name="mmalign",
    help="Train an image-text dual encoder, export it once, and get the same vectors everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (info, verify, search, explain, bench, pack, unpack, upgrade):
    app.command()(verb)
app.command(context_settings={"allow_extra_args": True})(embed)  # a pattern that the shell expanded: embed says so


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the verb's code.

    0: done; 2, with one line of error on stderr: cannot run; 130, 143, 129: Ctrl-C, SIGTERM, SIGHUP; 141: whoever read
    the output closed it.
    """
    escape_what_does_not_fit()
    with stop_on_signals() as stop:
        try:
            code = _run(args)
        except MmalignError as error:
            code = _fail(error)
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            code = EXIT_PIPE_CLOSED
        except OSError as error:
            code = _fail(MmalignError(f"{error.filename or 'the output'}: {error.strerror or error}. Check it."))
        except Exception:  # noqa: BLE001  a fault of ours: told in full, and never taken for the 1 that says a bundle differs
            traceback.print_exc()
            code = EXIT_CANNOT_RUN
    discard_what_is_left()
    raise SystemExit(stop.exit_code if code == EXIT_INTERRUPTED else code)


def _run(args: Sequence[str] | None) -> int | str:
    """Return the exit code. Raises BrokenPipeError, of which typer and rich make 1, as if a bundle differed."""
    load_verbs(app)
    command, words = typer.main.get_command(app), sys.argv[1:] if args is None else args
    refuse_empty_paths(command, words)
    try:
        # Without words it prints its help, which is no error of the words.
        code: int | str | None = command(words, prog_name="mmalign", standalone_mode=not words)
    except UsageError as error:
        raise refusal(error, command, words) from error
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):
            raise left.__context__ from None
        code = left.code
    sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    return code or 0


def _fail(error: MmalignError) -> int:
    with contextlib.suppress(OSError, SystemExit):  # nobody reads it, a terminal was closed: the code says it as well
        _print_error(error)
    return EXIT_CANNOT_RUN


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

    line = Text.assemble(("error: ", "bold red"), (printable(" ".join(str(error).split())), "red"))
    Console(stderr=True).print(line, soft_wrap=True)

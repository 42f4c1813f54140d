"""`mmalign upgrade`: a bundle of an older format, rewritten in the format of today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign_runtime.cli.options import BundleArgument
from mmalign_runtime.cli.terminal import say


def upgrade(
    bundle: BundleArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder or a .mmalign file to write instead of the bundle itself.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out if it is there.")] = False,
) -> None:
    """Rewrite a bundle of an older format as this version writes it: the same files, vectors and ids."""
    from mmalign_runtime.bundle.upgrading import upgrade_bundle
    from mmalign_runtime.spec import FORMAT_VERSION

    written = upgrade_bundle(bundle, out, force=force)
    if written is None:
        unwritten = "" if out is None else f", and {out} is not written"
        say(f"{bundle}: of format {FORMAT_VERSION} already, there is nothing to do{unwritten}")
    else:
        say(f"{written}: bundle.json rewritten in format {FORMAT_VERSION}, every other file as it was")

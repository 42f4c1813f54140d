"""`mmalign pack` and `mmalign unpack`, a bundle's folder to one .mmalign file and back; and `mmalign upgrade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign_runtime.cli.options import BundleArgument
from mmalign_runtime.cli.terminal import say

_BYTES_IN_MB = 1e6


def pack(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="The .mmalign file to write.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a bundle as one file, which every command takes in the folder's place."""
    from mmalign_runtime.bundle.packing import pack_bundle

    written = pack_bundle(bundle, out, force=force)
    say(f"{written}: {written.stat().st_size / _BYTES_IN_MB:.1f} MB")


def unpack(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle's folder if it is there.")] = False,
) -> None:
    """Write the files of a .mmalign bundle to a folder."""
    from mmalign_runtime.bundle.packing import unpack_bundle

    say(f"{unpack_bundle(bundle, out, force=force)}: unpacked")


def upgrade(
    bundle: BundleArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder or a .mmalign file to write instead of the bundle itself.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out if it is there.")] = False,
) -> None:
    """Rewrite a bundle of an older format as this version writes it: the same files, vectors and ids."""
    from mmalign_runtime.bundle.packing import upgrade_bundle
    from mmalign_runtime.spec import FORMAT_VERSION

    written = upgrade_bundle(bundle, out, force=force)
    if written is None:
        unwritten = "" if out is None else f", and {out} is not written"
        say(f"{bundle}: of format {FORMAT_VERSION} already, there is nothing to do{unwritten}")
    else:
        say(f"{written}: bundle.json rewritten in format {FORMAT_VERSION}, every other file as it was")

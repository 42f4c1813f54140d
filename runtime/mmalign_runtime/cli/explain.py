"""`mmalign explain`: where in an image a text looks, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, JsonOption
from mmalign_runtime.cli.terminal import say
from mmalign_runtime.errors import InputError
from mmalign_runtime.names import as_text, is_utf8

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@takes_config
def explain(
    bundle: BundleArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.", show_default=False)],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to write.", show_default=False)],
    *,
    asked: Loading,
    json: JsonOption = False,
) -> None:
    """Draw where in an image a text looks, for a bundle with an attention."""
    import msgspec

    from mmalign_runtime.atomic import replacing
    from mmalign_runtime.explain import explain as explain_pair

    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{out} ends in {out.suffix!r}, expected {', '.join(_SUFFIXES)}. Choose one of these.")
    if not is_utf8(text):
        raise InputError(f"the text {as_text(text)!r} is not UTF-8. Set the terminal's encoding to UTF-8.")
    with asked.load(bundle, towers=("text",)) as embedder:
        found = explain_pair(embedder, image, text)
    try:
        with replacing(out) as temporary:
            found.draw().save(temporary, "JPEG" if out.suffix.lower() in (".jpg", ".jpeg") else out.suffix[1:].upper())
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}. Check the folder.") from error
    if json:
        facts = {"score": found.score, "cosine": found.cosine, "weights": found.weights.tolist()}
        typer.echo(msgspec.json.encode(facts))
    else:
        say(f"score {found.score:.4f}, cosine of the vectors {found.cosine:.4f}: {as_text(str(out))}")

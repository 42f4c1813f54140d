"""Places that a path names: what is no path at all (a URL, the base64 of a file), and whether one can be written to.

Nothing is downloaded here.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import unquote

from mmalign_runtime.errors import InputError

# "https:/x" is what pathlib makes of "https://x"; joined to a folder it stands behind a slash. A scheme that is not
# known is one only with both slashes: "notes:/x" may be a path. One letter is a drive.
_KNOWN = "https?|ftps?|sftp|s3a?|gs|gcs|hf|hdfs|abfss?|az|wasbs?|oss|file|dbfs"
_URL = re.compile(rf"(?:^|/)(?:({_KNOWN}):/+|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)
_NO_SCHEME = re.compile(r"//[^/]+/")
_DATA = re.compile(r"(?:^|/)\s*data:[\w.+-]*(?:/[\w.+-]+)?[;,]", re.IGNORECASE)
# How the base64 of a JPEG, PNG, GIF, WebP, TIFF, BMP or HEIC begins; and any long text of its letters.
_BASE64_OF_IMAGE = re.compile(
    r"(?:/9j/|(?:.*/)?(?:iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|AAAA\w{2}Z0eX|Qk[0-3]))[\w+/\s-]{16,}={0,2}\s*", re.DOTALL
)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")
# Of base64's 64 letters one is a slash, of a path's letters more.
_MOST_SLASHES = 1 / 24


def foreign(path: str | Path) -> str | None:
    """Say what stands in the place of a path, and what to do; None where it may be one. What exists is a path."""
    text = str(path)
    found = _found(text)
    # As it was given, since Path("") is the working folder; a name too long for the system does not exist.
    return None if found is None or os.path.exists(path) else found  # noqa: PTH110


def _found(text: str) -> str | None:
    if "\0" in text:
        return None
    if _DATA.search(text):
        return "this is a data URL, expected a path. Pass base64.b64decode(url.partition(',')[2])."
    if found := _URL.search(text):
        if (found[1] or "").lower() == "file":
            return f"this is a file URL, expected a path. Pass the path alone: {_path_of(text[found.end() :])}"
        return "this is a URL, expected a path. Download it first, and pass the file or its bytes."
    if _NO_SCHEME.match(text):
        return "this looks like a URL without its scheme, and there is no such file. Download it, or check the path."
    is_long = _BASE64.fullmatch(text) and text.count("/") <= _MOST_SLASHES * len(text)
    if is_long or _BASE64_OF_IMAGE.fullmatch(text):
        return "this looks like base64, expected a path. Pass base64.b64decode(text)."
    return None


def _path_of(rest: str) -> str:
    return "/" + unquote(rest.removeprefix("localhost/"))


def check_place(path: Path) -> None:
    """Find out whether something can be written at `path`. Folders above it that are missing will be made, not here.

    Raises InputError where `path` is a URL, a file stands where a folder is needed, or the folder takes no file.
    """
    if foreign(path):
        raise InputError(f"{path} is not a path on this machine. Write to one, and copy the result from there.")
    try:
        folder = next(above for above in path.absolute().parents if above.exists() or above.is_symlink())
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so {path.name} cannot be written to it. Choose another place.")
        with tempfile.TemporaryFile(dir=folder):  # asked of the system: permissions do not tell of a read-only disk
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error

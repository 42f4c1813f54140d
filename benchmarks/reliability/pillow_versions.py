"""The runtime under several Pillow versions: python -m benchmarks.reliability pillow_versions

Each is installed into a folder of its own and used by a process of its own, on the golden images and on files of many
formats, colour modes and sizes. The same files must give the same pixels, and the same vectors to the last bit.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import PIL
from PIL import Image

from benchmarks.harness.places import FIXTURE, PHOTO, ROOT
from benchmarks.reliability.record import Found, Row
from mmalign_runtime.bundle.golden import pixels_sha256
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageTower

_WORKER = """
import sys
from pathlib import Path
import msgspec
from benchmarks.reliability.pillow_versions import answer
print(msgspec.json.encode(answer(Path(sys.argv[1]))).decode())
"""
VERSIONS = ("11.3.0", "12.3.0", "13.0.0")
_SIZES = ((40, 30), (31, 57), (224, 224), (301, 199), (90, 400))
_KINDS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("jpg", "RGB", {"quality": 85}),
    ("jpg", "L", {"quality": 60, "progressive": True}),
    ("jpg", "CMYK", {"quality": 75}),
    ("png", "RGB", {}),
    ("png", "RGBA", {}),
    ("png", "P", {}),
    ("png", "LA", {}),
    ("webp", "RGB", {"quality": 70}),
    ("webp", "RGBA", {"lossless": True}),
    ("gif", "P", {}),
    ("bmp", "RGB", {}),
    ("tiff", "RGB", {"compression": "tiff_lzw"}),
)


class Answer(msgspec.Struct, frozen=True):
    """What one version made of one file: the sha256 of its pixels and its vector, or the reason why there is none."""

    file: str
    pixels: str
    vector: tuple[float, ...]


class Answers(msgspec.Struct, frozen=True):
    """All answers of one version."""

    pillow: str
    answers: tuple[Answer, ...]


class Difference(msgspec.Struct, frozen=True):
    """A file that two versions answer otherwise."""

    file: str
    versions: tuple[str, str]
    same_pixels: bool
    max_abs_difference: float


def answer(folder: Path) -> Answers:
    """Decode and embed every file of a folder with the Pillow at hand."""
    embedder = Embedder.load(FIXTURE, provider="cpu", num_threads=1)
    spec, answers = embedder.bundle.spec.tower("image", ImageTower).spec, []
    for path in sorted(folder.iterdir()):
        try:
            pixels = pixels_sha256(decode_image(path, spec))
            vector = tuple(embedder.encode_image([path])[0].tolist())
        except ItemError as error:
            pixels, vector = error.reason, ()
        answers.append(Answer(path.name, pixels, vector))
    return Answers(PIL.__version__, tuple(answers))


def write_files(folder: Path) -> None:
    """Write the golden images and the generated ones."""
    for path in (FIXTURE / "golden").iterdir():
        if path.suffix != ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    photo = Image.open(PHOTO).convert("RGB")
    for suffix, mode, options in _KINDS:
        for width, height in _SIZES:
            image = photo.resize((width, height))
            if mode in ("RGBA", "LA"):
                image.putalpha(image.convert("L"))
            name = f"{suffix}-{mode}-{width}x{height}.{suffix}"
            image.convert(mode).save(folder / name, **options)  # type: ignore[arg-type]


def differences(first: Answers, other: Answers) -> list[Difference]:
    found = []
    for left, right in zip(first.answers, other.answers, strict=True):
        if left != right:
            pair = (np.array(left.vector), np.array(right.vector))
            moved = float(np.abs(pair[0] - pair[1]).max()) if pair[0].shape == pair[1].shape and left.vector else 2.0
            versions = (first.pillow, other.pillow)
            found.append(Difference(left.file, versions, left.pixels == right.pixels, moved))
    return found


def _answers_of(version: str, folder: Path, files: Path) -> Answers:
    target = str(folder / f"pillow-{version}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", target, f"pillow=={version}"], check=True)
    path = os.pathsep.join([target, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", _WORKER, str(files)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True, stdout=subprocess.PIPE)
    answers = msgspec.json.decode(done.stdout, type=Answers)
    if answers.pillow != version:
        raise SystemExit(f"the process ran Pillow {answers.pillow}, expected {version}")
    return answers


def run() -> Found:
    with tempfile.TemporaryDirectory() as name:
        files = Path(name) / "files"
        files.mkdir()
        write_files(files)
        first, *others = [_answers_of(version, Path(name), files) for version in VERSIONS]
    found = [difference for other in others for difference in differences(first, other)]
    moved = sorted({difference.file for difference in found})
    largest = max((difference.max_abs_difference for difference in found), default=0.0)
    differ = f"differ: {', '.join(moved)}; vectors by up to {largest:.1e}"
    said = differ if moved else "pixels and vectors are identical"
    num_files = len(first.answers)
    row = Row(f"files under Pillow {', '.join(VERSIONS)}", num_files, num_files - len(moved), said)
    return [row], {"num_files": num_files, "versions": VERSIONS, "differences": found}

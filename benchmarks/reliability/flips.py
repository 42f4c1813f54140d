"""One bit flipped in a copy of a bundle, folder and archive: python -m benchmarks.reliability flips

Every file is hit at least once, bundle.json too; the other flips are drawn by size, so that each bit is as likely as
another. Half of them put the file's time of writing back, as a failing disk would.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from benchmarks.harness.places import FIXTURE
from benchmarks.reliability.record import Row, counted, record
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX, write_archive
from mmalign_runtime.errors import BundleError, BundleFormatError, InputError, NewerFormatError
from mmalign_runtime.saved import SavedVectors, load_vectors, save_vectors
from mmalign_runtime.spec import SPEC_NAME, decode_spec

NUM_TRIALS = 200
NUM_VECTOR_TRIALS = 2000
_VECTORS = (20, 8)

# A zip's local header is 30 bytes and the name; its last two numbers are the lengths of name and extra field (PKWARE's
# APPNOTE, 4.3.7).
_HEADER_BYTES, _LENGTHS_AT = 30, 26
# From then on the runtime remembers a file's hash: what changes without a new time would go unseen.
_SETTLED_S = 2.1
# A version with one bit changed may be a newer one.
_NAMED = (BundleFormatError.__name__, NewerFormatError.__name__)
_SAME = "says the same (E for e in a number)"

Kind = Literal["folder", "archive"]


class Flip(msgspec.Struct, frozen=True):
    """One trial: where the bit was, and what opening the bundle said; an empty `error` is a flip not found."""

    kind: Kind
    file: str
    byte: int
    bit: int
    time_restored: bool
    error: str

    @property
    def is_named(self) -> bool:
        """Whether the error names the file."""
        return self.file in self.error


def flip_folder(bundle: Path, num_trials: int, rng: random.Random) -> list[Flip]:
    """Flip bits of a bundle's folder, one at a time, each put back before the next."""
    names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    drawn = _draw(names, [(bundle / name).stat().st_size for name in names], num_trials, rng)
    flips = []
    for name in drawn:
        path = bundle / name
        flips.append(_flip(bundle, "folder", path, name, rng, rng.randrange(path.stat().st_size)))
    return flips


def flip_archive(archive: Path, num_trials: int, rng: random.Random) -> list[Flip]:
    """Flip bits of an archive; the file that must be named is the entry that the bit is in, else the archive."""
    spans = entry_spans(archive)
    inside = [rng.randrange(*span) for span in spans.values()]
    rest = [rng.randrange(archive.stat().st_size) for _ in range(num_trials - len(inside))]
    flips = []
    for byte in [*inside, *rest][:num_trials]:
        names = [name for name, (start, end) in spans.items() if start <= byte < end]
        flips.append(_flip(archive, "archive", archive, (names or [archive.name])[0], rng, byte))
    return flips


def flip_every_bit(path: Path) -> Row:
    """Flip each bit of bundle.json, one at a time, and read it: it holds the hashes of all else, so none may pass.

    But for one that changes nothing that the file says: `1e-7` and `1E-7` are the same number.
    """
    whole = path.read_bytes()
    spec = decode_spec(whole)
    outcomes: Counter[str] = Counter()
    for number in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[number // 8] ^= 1 << number % 8
        try:
            is_same = decode_spec(bytes(changed)) == spec
            outcomes[_SAME if is_same else "NOT SEEN"] += 1
        except Exception as error:  # noqa: BLE001 - which error comes is what is measured
            outcomes[type(error).__name__] += 1
    good = sum(outcomes[name] for name in (*_NAMED, _SAME))
    return Row(f"every bit of {SPEC_NAME} flipped, one at a time", outcomes.total(), good, counted(outcomes))


def flip_vectors(path: Path, num_trials: int, rng: random.Random) -> Row:
    """Flip one bit of a file of saved vectors: it must be refused, or give the very vectors that were saved."""
    vectors = np.random.default_rng(0).standard_normal(_VECTORS).astype(np.float32)
    save_vectors(path, SavedVectors(tuple(map(str, range(len(vectors)))), vectors, "space", "fp32-variant"))
    whole, outcomes = path.read_bytes(), Counter[str]()
    for _ in range(num_trials):
        at = rng.randrange(len(whole))
        _write_byte(path, at, whole[at] ^ (1 << rng.randrange(8)))
        try:
            outcomes[
                "the same vectors" if np.array_equal(load_vectors(path).vectors, vectors) else "OTHER VECTORS"
            ] += 1
        except Exception as error:  # noqa: BLE001 - which error comes is what is measured
            outcomes[type(error).__name__] += 1
        _write_byte(path, at, whole[at])
    good = outcomes[InputError.__name__] + outcomes["the same vectors"]
    return Row(f"one bit flipped in saved vectors ({path.suffix})", num_trials, good, counted(outcomes))


def _draw(names: Sequence[str], sizes: Sequence[int], num_trials: int, rng: random.Random) -> list[str]:
    return [*names, *rng.choices(names, sizes, k=max(0, num_trials - len(names)))][:num_trials]


def _flip(bundle: Path, kind: Kind, path: Path, name: str, rng: random.Random, byte: int) -> Flip:
    whole, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    bit, is_restored = rng.randrange(8), rng.random() < 0.5
    _write_byte(path, byte, whole[byte] ^ (1 << bit))
    if is_restored:
        os.utime(path, ns=times)
    try:
        open_bundle(bundle)
        error = ""
    except BundleError as raised:
        error = str(raised)
    _write_byte(path, byte, whole[byte])
    folder = f"{bundle.parent}{os.sep}"
    return Flip(kind, name, byte, bit, is_restored, error.replace(folder, "").split(". ")[0])


def _write_byte(path: Path, at: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([value]))


def entry_spans(archive: Path) -> dict[str, tuple[int, int]]:
    """Return where each entry's bytes start and end; what lies between them is the archive's own."""
    spans = {}
    with zipfile.ZipFile(archive) as opened, archive.open("rb") as file:
        for entry in opened.infolist():
            file.seek(entry.header_offset + _LENGTHS_AT)
            lengths = file.read(_HEADER_BYTES - _LENGTHS_AT)
            start = entry.header_offset + _HEADER_BYTES
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            if entry.file_size:
                spans[entry.filename] = (start, start + entry.file_size)
    return spans


def _row(what: str, flips: Sequence[Flip]) -> Row:
    found, named = sum(bool(flip.error) for flip in flips), sum(flip.is_named for flip in flips)
    missed = sorted({flip.file for flip in flips if not flip.is_named})
    files = f"{len({flip.file for flip in flips})} files hit"
    return Row(
        what, len(flips), named, f"found {found}, file named {named}; {files}" + "".join(f"; not {m}" for m in missed)
    )


def run(bundle: Path = FIXTURE, trials: int = NUM_TRIALS, seed: int = 0) -> None:
    """Flip, open, and record."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"  # the memory of hashes: this bundle's alone
        copy = Path(name) / "bundle"
        shutil.copytree(bundle, copy)
        time.sleep(_SETTLED_S)
        open_bundle(copy)
        flips = flip_folder(copy, trials, rng)
        open_bundle(copy)  # put back as it was
        rows = [flip_every_bit(copy / SPEC_NAME), _row("one bit flipped in a bundle's folder", flips)]
        archive = _packed(copy)
        in_archive = flip_archive(archive, trials, rng)
        open_bundle(archive)
        rows.append(_row("one bit flipped in a .mmalign archive", in_archive))
        for suffix in (".npz", ".parquet"):
            rows.append(flip_vectors(Path(name) / f"vectors{suffix}", NUM_VECTOR_TRIALS, rng))
    record("flips", rows, {"flips": [*flips, *in_archive]}, is_kept=trials >= NUM_TRIALS)


def _packed(bundle: Path) -> Path:
    opened, archive = open_bundle(bundle), bundle.with_suffix(ARCHIVE_SUFFIX)
    with archive.open("w+b") as file:
        write_archive(opened.contents, [SPEC_NAME, *sorted(opened.spec.files)], file)
    return archive

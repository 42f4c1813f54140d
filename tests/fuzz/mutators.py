"""Mutations that keep what a reader checks first: a fitting seal for bundle.json, a readable zip for an archive.

Random bytes alone almost never get past the seal or the central directory, so what lies behind them would not be tried.
A mutator takes bytes, a size limit, a seed and `mutate` (libFuzzer's own mutation), and gives bytes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import random
import zipfile
from collections.abc import Callable

import msgspec

from mmalign_runtime.bundle.archive import frame_digest
from mmalign_runtime.spec import SPEC_NAME, seal_of
from tests.fuzz.zips import Archive, Entry, read_archive

Mutate = Callable[[bytes, int], bytes]
Mutator = Callable[[bytes, int, int, Mutate], bytes]

# One time in so many the bytes are mutated as they are: the checks before the seal must hold too.
_RAW_ONE_IN = 5
_MAX_EDITS = 4
# One time in so many the digest over an archive's frame is left wrong.
_UNFRAMED_ONE_IN = 8
_NUMBERS: tuple[object, ...] = (0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**40, 0.5, -0.0, 1e308, 5e-324)
_TEXTS: tuple[object, ...] = (
    *("", "1.0", "1.9", "2.0", "1.0\n", "fp32", "int8", "squash", "shortest_edge", "0" * 64, "f" * 63, "G" * 64),
    *(
        "../bundle.json",
        "/etc/passwd",
        "a/../../b",
        ".",
        "..",
        "a\\b",
        "a\x00b",
        "\u202e",
        "é",
        "e\u0301",
        "\U0001f436",
    ),
    *("bundle.json", "onnx", "onnx/", "./tokenizer.json", "con", "a" * 300),
)
_OTHERS: tuple[object, ...] = (None, True, False, [], {}, [[]], {"": ""}, [1, 2, 3], [0.0, 0.0, 0.0], [256, -1, 0])
_VALUES = (*_NUMBERS, *_TEXTS, *_OTHERS)
_NAMES: tuple[bytes, ...] = (
    *(b"", b"/etc/passwd", b"../x", b"a/../../x", b"./bundle.json", b"bundle.json/", b"BUNDLE.JSON", b"x\\y", b"c:x"),
    *(b"bundle.json", b"a\x00b", b"\xff\xfe", b"x" * 300, b"onnx", b"onnx/", b"caf\xc3\xa9"),
)
_SIZES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_FLAGS = (0x1, 0x8, 0x20, 0x40, 0x800, 0x2000, 0xFFFF)  # encrypted, sizes follow, patch, strong, UTF-8, masked, all
_METHODS = (1, 8, 9, 12, 14, 93, 99, 0xFFFF)  # shrunk, deflate, deflate64, bzip2, lzma, zstandard, AES, none such
_MODES = (0o120777, 0o040755, 0o010644, 0o060644, 0o140644, 0)  # link, folder, pipe, device, socket, none
# A zip64 field that gives eight bytes each for two sizes and an offset (APPNOTE 4.5.3), and broken ones.
_EXTRAS = (b"\x01\x00\x18\x00" + b"\xff" * 24, b"\x01\x00\x10\x00" + bytes(16), b"\x01\x00\xff\xff", b"\x01", b"up")


def mutate_bundle(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """Edit values, keys and nesting of bundle.json, and seal it again."""
    rng = random.Random(seed)
    contents = read_object(data)
    if contents is None or rng.randrange(_RAW_ONE_IN) == 0:
        return mutate(data, max_size)
    for _ in range(rng.randint(1, _MAX_EDITS)):
        _edit(contents, rng, mutate)
    sealed = seal(contents)
    return sealed if sealed is not None and len(sealed) <= max_size else mutate(data, max_size)


def read_object(data: bytes) -> dict[str, object] | None:
    """Return the JSON object in `data`, or None."""
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def seal(contents: dict[str, object]) -> bytes | None:
    """Return the bytes of bundle.json with a seal that fits, or None for contents that no JSON file holds."""
    try:
        return msgspec.json.encode(contents | {"seal": seal_of(contents)}, order="sorted")
    except (UnicodeEncodeError, OverflowError, RecursionError, msgspec.ValidationError):
        return None


def _edit(contents: dict[str, object], rng: random.Random, mutate: Mutate) -> None:
    """Change one thing somewhere below `contents`."""
    place = rng.choice(_containers(contents))
    if isinstance(place, list):
        _edit_list(place, rng, mutate)
        return
    keys = list(place)
    action = rng.randrange(4)
    if action == 0 or not keys:
        place[str(rng.choice((*_TEXTS, *keys, "x")))] = _awkward(rng)
    elif action == 1:
        del place[rng.choice(keys)]
    elif action == 2:
        place[str(rng.choice((*_TEXTS, *keys)))] = place.pop(rng.choice(keys))
    else:
        key = rng.choice(keys)
        place[key] = _changed(place[key], rng, mutate)


def _edit_list(place: list[object], rng: random.Random, mutate: Mutate) -> None:
    if not place or rng.randrange(3) == 0:
        place.append(_awkward(rng))
    elif rng.randrange(2):
        place.pop(rng.randrange(len(place)))
    else:
        at = rng.randrange(len(place))
        place[at] = _changed(place[at], rng, mutate)


def _changed(value: object, rng: random.Random, mutate: Mutate) -> object:
    """Return another value: one of a list of awkward ones, or for a text its bytes mutated."""
    if isinstance(value, str) and rng.randrange(2):
        return mutate(value.encode(), len(value.encode()) + 16).decode("utf-8", "replace")
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.randrange(2):
        return value + rng.choice((-1, 1, 0.5, 1000))
    return _awkward(rng)


def _awkward(rng: random.Random) -> object:
    return copy.deepcopy(rng.choice(_VALUES))  # edited later, perhaps


def _containers(value: object) -> list[dict[str, object] | list[object]]:
    """Return every object and array at or below `value`; no recursion, since mutated JSON nests deeply."""
    found: list[dict[str, object] | list[object]] = []
    waiting = [value]
    while waiting:
        place = waiting.pop()
        if isinstance(place, dict):
            found.append(place)
            waiting += place.values()
        elif isinstance(place, list):
            found.append(place)
            waiting += place
    return found


def mutate_archive(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """Change names, sizes, flags and bytes of a zip's entries, or what bundle.json inside it says of them."""
    rng = random.Random(seed)
    archive = read_archive(data)
    if archive is None or rng.randrange(_RAW_ONE_IN) == 0:
        return mutate(data, max_size)
    for _ in range(rng.randint(1, _MAX_EDITS)):
        _edit_archive(archive, rng, mutate)
    if rng.randrange(2):
        _list_again(archive)
    written = archive.to_bytes()
    if rng.randrange(_UNFRAMED_ONE_IN):
        written = frame(written)
    return written if len(written) <= max_size else mutate(data, max_size)


def frame(data: bytes) -> bytes:
    """Return an archive with a comment that fits what lies between its files; as it was, when that cannot be told."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries, comment = archive.infolist(), archive.comment
        digest = frame_digest(io.BytesIO(data), entries).encode()
    except Exception:  # noqa: BLE001 - a mutated zip fails in many ways, and then there is nothing to fit
        return data
    return data[: -len(digest)] + digest if len(comment) == len(digest) and data.endswith(comment) else data


def _edit_archive(archive: Archive, rng: random.Random, mutate: Mutate) -> None:
    action = rng.randrange(8)
    if action == 0:
        _edit_end(archive, rng)
    elif action == 1 or not archive.entries:
        archive.entries.insert(rng.randint(0, len(archive.entries)), Entry(rng.choice(_NAMES), b"x" * rng.randrange(9)))
    elif action == 2:
        archive.entries.append(copy.copy(rng.choice(archive.entries)))
    elif action == 3:
        archive.entries.remove(rng.choice(archive.entries))
    elif action == 4:
        rng.shuffle(archive.entries)
    else:
        _edit_entry(rng.choice(archive.entries), rng, mutate)


def _edit_entry(entry: Entry, rng: random.Random, mutate: Mutate) -> None:
    """Let one field of an entry lie, or change its bytes."""
    size = len(entry.data)
    lie = rng.choice((*_SIZES, size - 1, size + 1))
    edits: tuple[tuple[str, object], ...] = (
        ("name", rng.choice(_NAMES)),
        ("local_name", rng.choice(_NAMES)),
        ("flags", entry.flags ^ rng.choice(_FLAGS)),
        ("method", rng.choice(_METHODS)),
        ("attributes", rng.choice(_MODES) << 16 | rng.choice((0, 0x10))),
        ("size", lie),
        ("packed_size", lie),
        ("local_size", lie),
        ("crc", rng.choice(_SIZES)),
        ("offset", rng.choice((*_SIZES, 30, 64))),
        ("extra", rng.choice(_EXTRAS)),
        ("comment", b"c" * rng.randrange(40)),
        ("data", _mutated_contents(entry, rng, mutate)),
    )
    for field, value in rng.sample(edits, rng.choice((1, 1, 2))):
        setattr(entry, field, value)


def _mutated_contents(entry: Entry, rng: random.Random, mutate: Mutate) -> bytes:
    room = len(entry.data) + 64
    if entry.name == SPEC_NAME.encode():
        return mutate_bundle(entry.data, room, rng.getrandbits(32), mutate)
    return mutate(entry.data, room)


def _edit_end(archive: Archive, rng: random.Random) -> None:
    fields = ("num_entries", "directory_size", "directory_offset", "comment", "prefix", "suffix")
    field = rng.choice(fields)
    is_count = field in ("num_entries", "directory_size", "directory_offset")
    setattr(archive, field, rng.choice((*_SIZES, 2, 46, 200)) if is_count else rng.randbytes(rng.choice((1, 22, 70))))


def _list_again(archive: Archive) -> None:
    """Let bundle.json list every other entry with its true hash, so that only the zip's own lies are left."""
    for entry in archive.entries:
        contents = read_object(entry.data) if entry.name == SPEC_NAME.encode() else None
        if contents is not None:
            others = [other for other in archive.entries if other.name != entry.name]
            contents["files"] = {o.name.decode("utf-8", "replace"): hashlib.sha256(o.data).hexdigest() for o in others}
            entry.data = seal(contents) or entry.data


MUTATORS: dict[str, Mutator] = {"bundle": mutate_bundle, "archive": mutate_archive}

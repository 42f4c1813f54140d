import hashlib
from pathlib import Path

import pytest

from mmalign_runtime.engine.external_data import Reference, check_external, references
from mmalign_runtime.engine.session import ExternalFile, Model
from mmalign_runtime.errors import BundleError, BundleIntegrityError


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def tensor(*entries: tuple[str, str]) -> bytes:
    named = (field(1, key.encode()) + field(2, value.encode()) for key, value in entries)
    return field(8, b"w") + b"".join(field(13, entry) for entry in named) + bytes([14 << 3, 1])


EXTERNAL = tensor(("location", "../w.bin"))
# Where onnx.proto lets a tensor be: the fields from the model down to it.
PLACES = {
    "initializer": (7, 5),
    "sparse initializer": (7, 15, 1),
    "attribute of a node": (7, 1, 5, 5),
    "list of tensors": (7, 1, 5, 10),
    "subgraph": (7, 1, 5, 6, 5),
    "subgraph of a subgraph": (7, 1, 5, 11, 1, 5, 6, 5),
    "function": (25, 7, 5, 5),
}


def model(path: tuple[int, ...], tensor: bytes) -> memoryview:
    for number in reversed(path):
        tensor = (
            field(number, tensor)
            if number < 16
            else bytes([(number << 3 | 2) & 0x7F | 0x80, number >> 4, len(tensor)]) + tensor
        )
    return memoryview(bytes([1 << 3, 8]) + tensor)  # after ir_version


def listed(raw: bytes, size: int = 16, location: str = "w.bin") -> Model:
    """A model whose bundle lists one file of weights beside it."""
    content = bytes(size)
    return Model(
        raw,
        "model.onnx",
        (),
        external=(ExternalFile(location, memoryview(content), hashlib.sha256(content).hexdigest()),),
    )


def initializer(*entries: tuple[str, str]) -> bytes:
    return bytes(model(PLACES["initializer"], tensor(*entries)))


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_elsewhere_is_found_wherever_it_is_named(place: str) -> None:
    found = references(model(PLACES[place], EXTERNAL))
    assert found == {Reference("../w.bin", 0, None, is_initializer=place == "initializer")}
    assert references(model(PLACES[place], field(8, b"w") + field(9, b"raw data"))) == set()


def test_the_models_of_a_bundle_are_whole(tiny_bundle: Path) -> None:
    for path in tiny_bundle.glob("onnx/*.onnx"):
        assert references(memoryview(path.read_bytes())) == set()


@pytest.mark.parametrize("raw", [b"\x3a\xff", b"\xff" * 12, b"\x3b", b"no model at all"])
def test_bytes_that_are_no_protobuf_are_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|wire type"):
        references(memoryview(raw))


def test_a_tensor_inside_a_listed_file_is_allowed() -> None:
    check_external(listed(initializer(("location", "w.bin"), ("offset", "4"), ("length", "12"))))
    check_external(listed(initializer(("location", "w.bin"))))
    assert references(memoryview(initializer(("location", "w.bin"), ("offset", "4"), ("length", "12")))) == {
        Reference("w.bin", 4, 12, is_initializer=True)
    }


# onnxruntime takes the last for an address in its own memory.
@pytest.mark.parametrize("location", ["", "other.bin", "./w.bin", "../w.bin", "/w.bin", "W.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_tensor_in_any_other_file_is_refused(location: str) -> None:
    with pytest.raises(BundleIntegrityError, match=r"in another file, '.*'; expected 'w\.bin'"):
        check_external(listed(initializer(("location", location))))
    with pytest.raises(BundleIntegrityError, match="expected none"):
        check_external(Model(initializer(("location", location)), "model.onnx", ()))


@pytest.mark.parametrize("place", sorted(PLACES.keys() - {"initializer"}))
def test_what_engines_read_from_a_path_is_refused_in_a_listed_file_too(place: str) -> None:
    with pytest.raises(BundleIntegrityError, match=r"in another file, 'w\.bin'"):
        check_external(listed(bytes(model(PLACES[place], tensor(("location", "w.bin"))))))


@pytest.mark.parametrize(("offset", "length"), [("0", "17"), ("16", "1"), ("17", "0"), ("9" * 30, "1")])
def test_a_tensor_beyond_the_end_is_refused(offset: str, length: str) -> None:
    with pytest.raises(BundleIntegrityError, match=r"reads beyond the end of 'w\.bin', which has 16 bytes"):
        check_external(listed(initializer(("location", "w.bin"), ("offset", offset), ("length", length))))


@pytest.mark.parametrize("number", ["-1", "1e3", "", "0x10", "٣"])
def test_what_does_not_say_where_a_tensor_lies_is_refused(number: str) -> None:
    for key in ("offset", "length"):
        with pytest.raises(BundleError, match="is not a number of bytes"):
            check_external(listed(initializer(("location", "w.bin"), (key, number))))


def test_a_tensor_at_two_places_is_refused() -> None:
    with pytest.raises(BundleError, match="it says twice where a tensor lies"):
        check_external(listed(initializer(("location", "w.bin"), ("location", "../w.bin"))))

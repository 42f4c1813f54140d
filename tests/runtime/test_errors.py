import pickle

import pytest

from mmalign_runtime import errors
from mmalign_runtime.errors import ItemError, MmalignError, SpaceMismatchError


def test_every_error_has_the_one_root_and_stands_in_the_tree() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(value, MmalignError) for value in classes)
    assert errors.__doc__ is not None
    assert all(value.__name__ in errors.__doc__ for value in classes)


def test_an_item_error_can_be_moved_to_another_position() -> None:
    error = ItemError(0, "dog.jpg", "decode", "damaged. Replace it.").at(7)
    assert (error.index, error.source, error.stage) == (7, "dog.jpg", "decode")
    assert str(error) == "item 7 (dog.jpg), decode: damaged. Replace it."


def test_a_space_mismatch_names_both_spaces() -> None:
    with pytest.raises(SpaceMismatchError, match="two spaces, left and right, and cannot be compared: embed again"):
        raise SpaceMismatchError("left", "right", "embed again")


def test_every_error_crosses_a_process_border() -> None:
    item = pickle.loads(pickle.dumps(errors.ItemError(3, "a.jpg", "decode", "why")))
    assert (str(item), item.index, item.stage) == ("item 3 (a.jpg), decode: why", 3, "decode")
    spaces = errors.SpaceMismatchError("mma-1", "mma-2", "embed again.")
    assert str(pickle.loads(pickle.dumps(spaces))) == str(spaces)
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.MmalignError) and "__init__" not in vars(kind):
            assert str(pickle.loads(pickle.dumps(kind("what happened")))) == "what happened"

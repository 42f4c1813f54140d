import inspect

import msgspec
import pytest

from mmalign.data import SplitConfig, errors
from mmalign_runtime.errors import MmalignError


def test_every_error_is_in_the_tree_and_has_the_root() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value is not MmalignError]
    assert all(issubclass(value, errors.DataError) for value in classes)
    assert all(value.__name__ in (errors.__doc__ or "") for value in classes)
    assert issubclass(errors.DataError, MmalignError)


class Settings(msgspec.Struct):
    split: SplitConfig


def test_a_config_error_names_its_place_when_it_comes_from_toml() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"sum below 1\..* - at `\$\.split`"):
        msgspec.toml.decode("[split]\nval = 0.5\ntest = 0.5", type=Settings)

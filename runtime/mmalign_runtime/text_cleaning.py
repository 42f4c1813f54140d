"""What is done to a text before it is tokenized, by the name that the bundle gives it.

Some models were trained on texts that Python code had cleaned; tokenizer.json does not hold such code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Cleaning

Cleaner: TypeAlias = Callable[[str], str]


def find_cleaner(name: Cleaning) -> Cleaner | None:
    """Return the function of that name, or None for "none": such texts go to the tokenizer as they are.

    Raises MissingDependencyError when this runtime does not have it.
    """
    if name == "none":
        return None
    raise MissingDependencyError(
        f"texts are to be cleaned as {name!r} before they are tokenized, and this runtime has no such cleaner. "
        "Run `pip install -U 'mmalign-runtime[clean]'`."
    )

"""Every error the runtime raises on purpose.

MmalignError
├── BundleError                 the bundle cannot be used
│   ├── BundleFormatError       bundle.json is not what this version reads
│   │   └── NewerFormatError    a newer mmalign made it
│   ├── BundleFeatureError      the bundle asks for what this version does not compute
│   ├── BundleIntegrityError    a file is missing, changed, or outside the bundle
│   ├── PrefixError             its vectors have no prefix of the length asked for
│   └── VerificationError       the golden cases give other vectors here
├── ItemError                   one image or text cannot be embedded
├── InputError                  a command's input (folder, table, column) is not usable
├── ProviderError               the engine or execution provider asked for is not there, or cannot compute so
├── ProfileError                a saved profile does not fit this bundle or this machine
├── EngineError                 the engine failed inside a run
├── EmbedderStateError          an embedder is used after close(), or in a forked child
├── MissingDependencyError      an optional package is not installed
└── SpaceMismatchError          vectors of two spaces were about to be compared

Each message says what was seen, what was expected and what to do.
"""

from __future__ import annotations


class MmalignError(Exception):
    """Root of every error that mmalign raises on purpose."""


class BundleError(MmalignError):
    """A bundle cannot be used."""


class BundleFormatError(BundleError):
    """bundle.json does not follow the format this version reads."""


class NewerFormatError(BundleFormatError):
    """bundle.json was written by a newer mmalign, in a format that this version does not know."""


class BundleFeatureError(BundleError):
    """The bundle asks for something that the format names and this version does not compute."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, was changed, or leaves the bundle."""


class PrefixError(BundleError):
    """Vectors were asked for by their first components, of a number that the bundle or the use does not allow."""


class VerificationError(BundleError):
    """The bundle's golden cases give other vectors on this machine than the reference gave."""


class ItemError(MmalignError):
    """One image or text cannot be embedded.

    `index` is its position among the items given, `source` names it (a path, or its type), `stage` is one of
    "open", "decode", "preprocess", "tokenize", and `reason` says what was seen, what was expected and what to do.
    """

    def __init__(self, index: int, source: str, stage: str, reason: str) -> None:
        super().__init__(f"item {index} ({source}), {stage}: {reason}")
        self.index = index
        self.source = source
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type[ItemError], tuple[int, str, str, str]]:
        # Exceptions are pickled with the arguments of Exception.__init__, here the message alone: a process pool whose
        # worker raised one would hang.
        return ItemError, (self.index, self.source, self.stage, self.reason)

    def at(self, index: int) -> ItemError:
        """Return the same error for another position."""
        return ItemError(index, self.source, self.stage, self.reason)


class InputError(MmalignError):
    """A command's input (a folder, a table, a column, an output path) is not usable."""


class ProviderError(MmalignError):
    """The engine or execution provider that was asked for is not available, or did not take the model."""


class ProfileError(MmalignError):
    """A saved profile cannot be read, or was made for another bundle or another machine."""


class EngineError(MmalignError):
    """The engine failed while it ran a graph: memory ran out, or the device was lost."""


class EmbedderStateError(MmalignError):
    """An embedder cannot be used any more: it was closed, or this process was forked from the one that loaded it."""


class MissingDependencyError(MmalignError):
    """An optional package is needed and not installed."""


class SpaceMismatchError(MmalignError):
    """Vectors of two embedding spaces were about to be compared."""

    def __init__(self, left: str, right: str, fix: str) -> None:
        super().__init__(f"these vectors live in two spaces, {left} and {right}, and cannot be compared: {fix}")
        self.left = left
        self.right = right
        self.fix = fix

    def __reduce__(self) -> tuple[type[SpaceMismatchError], tuple[str, str, str]]:
        return SpaceMismatchError, (self.left, self.right, self.fix)

"""Why one image is not embedded, said where it is found; `decode_image` adds which item it was."""

from __future__ import annotations

from typing import Literal

Stage = Literal["open", "decode"]


class Refusal(Exception):  # noqa: N818 not an error yet: decode_image makes it an ItemError
    """`stage` is where the item stopped, `reason` what was seen, what was expected and what to do."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(reason)
        self.stage: Stage = stage
        self.reason = reason

"""The bundle on disk: `contents` of a `folder` or `archive`, held to their `hashes`; `packing`, and `golden` cases."""

from __future__ import annotations

from mmalign_runtime.bundle.opened import Bundle, is_bundle, open_bundle

__all__ = ["Bundle", "is_bundle", "open_bundle"]

"""What users of the runtime load and call: an embedder that is verified when it is loaded, as far as they ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, Unpack, get_args

from mmalign_runtime.base_embedder import BaseEmbedder, open_embedder
from mmalign_runtime.config import RuntimeConfig, RuntimeFields
from mmalign_runtime.spec import ImageLimits, Modality

Verification = Literal["hash", "golden"]


class Embedder(BaseEmbedder):
    """Turns images and texts into unit vectors of one space.

    Safe to call from many threads at once; on the CPU as many runs go on at once as there are threads. Not across
    a fork: load it in the child. Close it, or use it as a context manager, to give its memory back at once.
    """

    @classmethod
    def load(
        cls,
        path: str | Path,
        config: RuntimeConfig | None = None,
        *,
        profile: str | Path | None = None,
        towers: Sequence[Modality] = ("image", "text"),
        verify: Verification | None = "hash",
        lazy: bool = False,
        image_limits: ImageLimits | None = None,
        **fields: Unpack[RuntimeFields],
    ) -> Self:
        """Open a bundle, a folder or a .mmalign file, and load the towers asked for.

        `config` says how it is run, and each field of RuntimeConfig is an argument too, which wins over it:
        `Embedder.load(path, engine="openvino", num_threads=2)`. `profile`, in the place of a config, is a file that
        `mmalign bench --save-profile` wrote.

        `verify="hash"` holds every file to its hash (files untouched since an earlier check are not read again),
        `"golden"` runs the golden cases too, as `mmalign verify` does, None does neither. With `lazy`, a tower is
        loaded when it is first used. `image_limits` take the place of the bundle's.

        Raises BundleError (and its children) when the bundle cannot be used, ProviderError when the engine or provider
        is not there, MissingDependencyError when it is not installed, ProfileError when the profile does not fit this
        bundle and machine, ValueError for arguments that make no sense, TypeError for one that there is not.
        """
        if verify not in (None, *get_args(Verification)):
            raise ValueError(f"verify is {verify!r}, expected 'hash', 'golden' or None.")
        embedder = open_embedder(
            cls,
            path,
            config,
            profile=profile,
            towers=towers,
            check_hashes=verify is not None,
            image_limits=image_limits,
            **fields,
        )
        if not lazy:
            embedder.load_towers()
        if verify == "golden":
            from mmalign_runtime.verify import require_golden  # few ask for it, and a start has no time for it

            try:
                require_golden(embedder)
            except BaseException:
                embedder.close()
                raise
        return embedder

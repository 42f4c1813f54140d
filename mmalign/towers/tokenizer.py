"""The tokenizer of a text tower, as the one tokenizer.json that training and serving read."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import transformers
from tokenizers import Tokenizer, normalizers

from mmalign._compat import quiet_loading
from mmalign.errors import WeightsError
from mmalign.imported import imported_text_tower, is_imported
from mmalign.towers.text import TextTowerConfig, sentence_modules
from mmalign.towers.text_files import find_file, how_to_fetch, resolve


def load_tokenizer(config: TextTowerConfig) -> Tokenizer:
    """Return the tower's tokenizer, truncation and padding left to the text spec.

    It lowers the case of texts where a sentence-transformers model does so before it tokenizes. Raises WeightsError,
    saying how to get it, when it is not here and cannot be fetched.
    """
    if is_imported(config.name):
        return imported_text_tower(config.name)[2]
    modules = sentence_modules(config)
    tokenizer = _load(config, "" if modules is None or config.tokenizer else modules.encoder_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if modules is not None and modules.do_lower_case:
        after = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])
    return tokenizer


def _load(config: TextTowerConfig, subfolder: str) -> Tokenizer:
    source = resolve(config.tokenizer or config.name)
    if Path(source).is_dir():
        local = find_file(source, f"{subfolder}/tokenizer.json" if subfolder else "tokenizer.json")
        if local is not None:
            return _read(local)
    return _fetch(source, subfolder)


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception for every fault in the file
        raise WeightsError(f"{path} is not a tokenizer.json: {error}. Fetch it again.") from error


def _fetch(name: str, subfolder: str) -> Tokenizer:
    try:
        with quiet_loading():
            fast = transformers.AutoTokenizer.from_pretrained(name, subfolder=subfolder)
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(how_to_fetch(name, "tokenizer", error)) from error
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise WeightsError(f"{name} has no fast tokenizer, so no tokenizer.json can travel with it. Choose another.")
    return cast("Tokenizer", backend)

"""The folder of a training run: its configuration, pairs and towers, and the trained model as exporters see it."""

from __future__ import annotations

from mmalign.run.folder import (
    Run,
    RunFolder,
    check_start,
    claim_run,
    create_run,
    describe_encoder,
    initial_model,
    join_run,
    load_run,
    open_run,
    read_trained_images,
    record_changes,
    write_trained_images,
)

__all__ = [
    "Run",
    "RunFolder",
    "check_start",
    "claim_run",
    "create_run",
    "describe_encoder",
    "initial_model",
    "join_run",
    "load_run",
    "open_run",
    "read_trained_images",
    "record_changes",
    "write_trained_images",
]

"""No test may need a model hub: its client is told so before anything imports it, in this process and its children."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

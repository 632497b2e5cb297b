"""It takes ten minutes: `nox -s soak` runs it, and nothing else does."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "SOAK_SECONDS" in os.environ else ["test_soak.py"]

"""These scenarios take minutes: `nox -s chaos` runs them, and nothing else does."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "CHAOS" in os.environ else ["test_*.py"]

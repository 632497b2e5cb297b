"""`nox -s workers` installs the servers and runs these; nothing else does."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "WORKERS" in os.environ else ["test_*.py"]

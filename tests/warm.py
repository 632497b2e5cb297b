"""Processes that start in no time: forks of one interpreter, which has imported the package."""

from __future__ import annotations

import multiprocessing
from typing import Any

_METHODS = multiprocessing.get_all_start_methods()

#: As the module `multiprocessing`. Unlike a fork of pytest, its processes inherit no threads.
WARM: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
WARM.set_forkserver_preload(["flask_bitmapist.analytics", "flask_bitmapist.delivery", "pytest"])

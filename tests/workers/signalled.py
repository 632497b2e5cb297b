"""A process whose threads mark until a signal ends it, in one of the ways that processes end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from workers.marking import mark, tracker

THREADS = 4


def flush_and_exit(number: int, frame: FrameType | None) -> None:
    tracker.flush()
    os._exit(0)  # whatever the other threads are at


def exit_(number: int, frame: FrameType | None) -> None:
    sys.exit()


def mark_each(ids: Sequence[int]) -> None:
    for id_ in ids:
        mark(id_)


if __name__ == "__main__":
    handler = {"flush": flush_and_exit, "exit": exit_}.get(sys.argv[1])
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)
    for first in range(1, THREADS):
        ids = range(first, 1_000_000, THREADS)
        threading.Thread(target=mark_each, args=(ids,), daemon=True).start()
    mark_each(range(0, 1_000_000, THREADS))  # in the thread that handles signals

"""An application that marks until it is told that the fault is over, and logs what it marked.

Each line of the log is a call that returned: its first and its last id. At the end a file says what
the process saw: calls that raised, calls that took too long, and by how much its memory grew.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

FOLDER = Path(os.environ["MARKS_FOLDER"])
TIMEOUT = 0.25
#: What a call may take beyond the timeout.
ALLOWANCE = 0.05
BATCH = 130
NOON = datetime(2026, 3, 14, 12)
WARM = 10_000


def jumping(clock: Callable[[], float]) -> Callable[[], float]:
    """A wall clock that is a day late while the file `jump` is there."""
    jump = FOLDER / "jump"
    return lambda: clock() - 86_400 * jump.exists()


# Before anything is imported that takes a reference to the clock.
time.time = jumping(time.time)

from flask import Flask  # noqa: E402

from flask_bitmapist import FlaskBitmapist, mark_event  # noqa: E402


class Control:
    """A thread that only sleeps: by how much it wakes late tells how busy the machine is."""

    def __init__(self) -> None:
        self.late = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            before = time.perf_counter()
            time.sleep(0.005)
            self.late += time.perf_counter() - before - 0.005


def memory() -> int:
    """The most that the process has used, in KiB. (`ru_maxrss` begins with its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def run(first: int, least: int) -> dict[str, object]:
    """Mark from `first` on, at least to `least`, until the file `over` is there."""
    log = os.open(FOLDER / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    control = Control()
    raised: list[str] = []
    slow: list[float] = []
    warm = 0
    calls = 0
    while first < least or not (FOLDER / "over").exists():
        calls += 1
        # Single calls, and among them batches that bring the number.
        last = first if calls % 4 else first + BATCH - 1
        late, before = control.late, time.perf_counter()
        try:
            mark_event("e", first if first == last else range(first, last + 1), now=NOON)
        except Exception as error:
            raised.append(repr(error))
        took = time.perf_counter() - before
        if took > TIMEOUT + ALLOWANCE + control.late - late:
            slow.append(round(took, 3))
        os.write(log, b"%d %d\n" % (first, last))
        first = last + 1
        if first > WARM and not warm:
            warm = memory()
        time.sleep(0.001)
    return {"raised": raised, "slow": slow, "grown": memory() - warm if warm else 0}


if __name__ == "__main__":
    app = Flask("chaos", instance_path=str(FOLDER / "instance"))
    app.config.update(
        BITMAPIST_REDIS_URL=os.environ["MARKS_SERVER"],
        BITMAPIST_DELIVERY=os.environ["MARKS_DELIVERY"],
        BITMAPIST_TIMEOUT=TIMEOUT,
        DISABLE_BLUEPRINT=True,
    )
    FlaskBitmapist(app)
    with app.app_context():
        told = run(int(sys.argv[1]), int(sys.argv[2]))
    (FOLDER / "told").write_text(json.dumps(told))

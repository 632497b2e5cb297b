"""The flusher: one daemon thread a process, which works while there is work and then ends.

No request drains, probes or waits for the server: the thread does. Where no thread runs, the next
mark does a little of its work.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

from .. import locks
from ..faults import contained_faults
from .forks import begin_anew_in_children, notice_fork

logger = logging.getLogger("flask_bitmapist")

_PAUSE = 0.1  # seconds between two passes, unless there is more to do or something wakes the thread
_IDLE = 5.0  # seconds without work after which the thread ends, or looks as seldom as that
#: Seconds for which a caller waits if another is at work.
_GRACE = 0.005
#: Seconds for which whoever ends the thread waits for it.
_LAST_GRACE = 1.0
#: Whether this process may become another one without Python being told.
_FORKS_UNTOLD = "uwsgi" in sys.modules


#: What uWSGI takes for no.
_OFF = (b"0", b"false", b"off", b"no", False)


class Next(Enum):
    """When a pass is to follow."""

    NOW = "now"
    SOON = "soon"
    LATER = "later"
    #: There is nothing to do, but the thread is to stay.
    WATCHES = "watches"
    #: There is nothing to do.
    NEVER = "never"


class Flusher:
    """Sees to it that `work` is done, in the process that has the work."""

    def __init__(
        self,
        begin: Callable[[], Next],
        work: Callable[[], Next],
        hurry: Callable[[], None],
        forked: Callable[[], None],
        finish: Callable[[], None],
    ) -> None:
        """
        :param begin: the thread's first pass, before there is a batch: the process may end soon.
        :param work: any other pass.
        :param hurry: a short pass, for the caller who does it where no thread runs.
        :param forked: called in a child whose work is not that of its parent.
        :param finish: the thread's last pass, after `end_soon`.
        """
        self._begin = begin
        self._work = work
        self._hurry = hurry
        self._forked = forked
        self._finish = finish
        #: Whether there will be no more work.
        self._finishes = False
        self._entering = locks.Lock()
        self._reset()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """This process is a child: its parent's thread is not here, and has its own work."""
        self._forked()
        self._reset()

    def _reset(self) -> None:
        # Made at the first use in a process: what gevent patches must not be made before it does.
        self._process = 0
        self._thread: threading.Thread | None = None
        #: What that thread has, and no other one.
        self._turn: object = None
        #: Whether the thread runs, so that nobody need `attend`.
        self.runs = False
        #: Whether it has little to do, and is to be woken if there is more.
        self._dozes = False
        #: When a caller does the work next.
        self._due = 0.0

    def enter(self) -> None:
        """Find out whether this process is a child."""
        process = os.getpid()
        if self._process == process:
            return
        notice_fork()
        with self._entering:
            if self._process == process:
                return
            self._reset()
            # Reentrant: a signal handler may mark and flush while its thread is at work.
            self._starting, self._working = threading.RLock(), threading.RLock()
            # An Event's own lock is not; this is held while there is no call to wake up.
            self._asleep = threading.Lock()
            self._asleep.acquire()
            self._process = process

    def attend(self) -> None:
        """See to it that the work is done, soon and by the thread if there can be one."""
        self.enter()
        if self._dozes:
            self.wake()
        if self._thread is not None or time.monotonic() < self._due or self._start():
            return
        self._due = time.monotonic() + _PAUSE
        with contained_faults("deliver marks"):
            self._hurry()

    def wake(self) -> None:
        """Make the next pass begin now."""
        self.enter()
        with suppress(RuntimeError):  # somebody has done so
            self._asleep.release()

    @contextmanager
    def alone(self, wait: float | None = _GRACE) -> Iterator[bool]:
        """Whether nobody else is at work, and nobody begins inside. All that work use it.

        :param wait: seconds to wait for who is; None: as long as it takes.
        """
        self.enter()
        working = self._working
        if not working.acquire(timeout=-1 if wait is None else max(0.0, wait)):
            yield False
            return
        try:
            yield True
        finally:
            working.release()

    def end(self) -> None:
        """Let go of the thread, and wait for it. Whoever has more work starts another."""
        self.enter()
        thread, self._thread, self._turn = self._thread, None, None
        self.runs = self._dozes = False
        if thread is not None and thread is not threading.current_thread():
            self.wake()
            thread.join(_LAST_GRACE)

    def end_soon(self) -> bool:
        """Have the thread `finish`; False if there is none. Waits for nothing."""
        if self._thread is None or self._process != os.getpid():
            return False
        self._finishes = True
        with suppress(RuntimeError):
            self._asleep.release()
        return True

    def _start(self, pause: float = 0.0) -> bool:
        """Whether the thread runs now.

        :param pause: seconds after which it begins.
        """
        if not _threads_run():
            return False
        with self._starting:
            if self._thread is not None:
                return True
            self._turn = object()
            thread = threading.Thread(
                target=_run,
                args=(weakref.ref(self), self._turn, self._asleep, pause),
                name="flask-bitmapist-delivery",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the process is ending
                return False
            self._thread = thread
            self.runs = not _FORKS_UNTOLD
            return True

    def _goes_on(self, turn: object) -> bool:
        """Whether the thread that has `turn` is to do another pass."""
        if turn is not self._turn:
            return False
        if self._finishes:
            with contained_faults("deliver marks"):
                self._finish()
        return not self._finishes

    def _do(self, work: Callable[[], Next]) -> Next:
        """Do `work`. A fault of ours is logged, and is not the end of the thread."""
        with contained_faults("deliver marks"):
            return work()
        return Next.LATER

    def _replace(self, error: BaseException) -> None:
        """The thread ends before its time: somebody has raised SystemExit in it, or gevent ends it.

        Another one goes on, after a while: what ended this one may end it too.
        """
        logger.error("the thread that delivers marks has ended: %r. Another one goes on", error)
        self._thread = None
        self.runs = self._dozes = False
        self._start(_IDLE)

    def _rest(self) -> None:
        """The thread ends. From here on, whoever has work starts another."""
        self._thread = None
        self.runs = False
        if self._do(self._work) is not Next.NEVER:
            self.attend()

    def _doze(self) -> Next:
        """The thread has little to do. From here on, whoever has work wakes it up."""
        self.runs, self._dozes = False, True
        return self._do(self._work)

    def _go_on(self) -> None:
        """The thread looks for work often."""
        self.runs, self._dozes = not _FORKS_UNTOLD, False


def _run(
    reference: weakref.ref[Flusher], turn: object, asleep: threading.Lock, pause: float
) -> None:
    """The thread, which does not keep alive the flusher of an application that is gone."""
    try:
        if pause:
            asleep.acquire(timeout=pause)
        _pass_by_pass(reference, turn, asleep)
    except BaseException as error:
        flusher = reference()
        if flusher is not None and flusher._turn is turn:
            flusher._replace(error)


def _pass_by_pass(reference: weakref.ref[Flusher], turn: object, asleep: threading.Lock) -> None:
    flusher = reference()
    following = Next.NEVER if flusher is None else flusher._do(flusher._begin)
    worked = time.monotonic()
    pause = _PAUSE
    while True:
        del flusher
        if following is not Next.NOW:
            asleep.acquire(timeout=_IDLE if following is Next.LATER else pause)
        flusher = reference()
        if flusher is None or not flusher._goes_on(turn):
            return
        flusher._go_on()
        pause = _PAUSE
        following = flusher._do(flusher._work)
        if following not in (Next.NEVER, Next.WATCHES):
            worked = time.monotonic()
        elif time.monotonic() - worked >= _IDLE:
            if following is Next.NEVER:
                flusher._rest()
                return
            following = flusher._doze()
            pause = _IDLE if following is Next.WATCHES else _PAUSE


def _threads_run() -> bool:
    """Whether a thread can do its work here.

    Under uWSGI without ``enable-threads`` threads stand still between requests, and the locks that
    they hold stay held. Its master forks without telling Python: a lock that a thread of the master
    holds at that moment is held in the children for ever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if options is None:
        return True
    if not uwsgi.worker_id():  # this is the master
        return False
    enabled, threads = (options.get(name, b"0") for name in ("enable-threads", "threads"))
    return enabled not in _OFF or threads not in (*_OFF, b"1")

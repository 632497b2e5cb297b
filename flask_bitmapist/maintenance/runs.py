"""Long runs over rows or lines: page by page, through outages, and resumable."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ..refusals import SERVER_ERRORS, need_of
from ..tracker import Tracker

if TYPE_CHECKING:
    from ..delivery import Written

_Position = TypeVar("_Position")
_Page = TypeVar("_Page")
_Counts = TypeVar("_Counts")

#: Seconds for which a server that does not take marks is tried again.
PATIENCE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: Mistakes in the program or in what was asked for: running it again would not help.
_MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
#: Seconds for delivering the marks of an earlier outage, which come before anything else.
_EARLIER = 30.0


class StoppedError(Exception):
    """A run was cut short; what it had done by then stays done."""

    def __init__(self, reason: str, after: Any, counts: Any) -> None:
        """
        :param after: where to resume; None: at the beginning.
        :param counts: what had been done.
        """
        super().__init__(reason)
        self.after = after
        self.counts = counts


class Bulk:
    """Writes many marks; a server that fails is waited for."""

    def __init__(self, tracker: Tracker, patience: float = PATIENCE) -> None:
        """:raises ValueError: if the application's marks do not reach the server."""
        if not tracker.enabled:
            raise ValueError("nothing can be marked, as BITMAPIST_ENABLED is False")
        if Tracker.recorder is None and tracker.keeps_marks_in_process():
            raise ValueError(
                "marks are not sent to the server, as TESTING is set: BITMAPIST_ENABLED = True "
                "sends them"
            )
        self._tracker = tracker
        self._patience = patience
        #: The number of the run's last trip; 0: there is none yet.
        self.trips = 0
        self._kept: int | None = None
        tracker.flush(_EARLIER)  # what is older must not come later

    def write(self, event: str, ids: Any, *rest: Any, **options: Any) -> None:
        """Mark `ids`, as `Tracker.write_many`, whose errors it raises when patience is over.

        :param options: its keyword arguments.
        """
        call = functools.partial(self._tracker.write_many, event, ids, *rest, **options)
        written: Written | None = self.patiently(call)
        if written is not None:
            # What was lost before the run's first trip was not written by the run.
            is_own = self.trips > 0
            self.trips = written.trips
            if written.kept is not None and is_own:
                self._kept = min(written.kept, written.kept if self._kept is None else self._kept)

    def take_kept(self) -> int | None:
        """The last trip that the server had kept, if it has lost some since this was asked."""
        kept, self._kept = self._kept, None
        return kept

    def patiently(self, call: Callable[[], Any]) -> Any:
        """The result of `call`, once the server answers."""
        return patiently(call, self._patience)


def patiently(call: Callable[[], Any], patience: float) -> Any:
    """The result of `call`, once the server answers.

    :param patience: seconds for which it is tried again.
    """
    pause, end = _FIRST_PAUSE, time.monotonic() + patience
    while True:
        try:
            return call()
        except SERVER_ERRORS as error:
            if need_of(error) is not None or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


class _Step(NamedTuple, Generic[_Position, _Counts]):
    position: _Position | None
    counts: _Counts
    #: The last trip that the server must have kept if this step's marks are not lost.
    trips: int


def run(
    pages: Callable[[_Position | None], Iterable[tuple[_Position, _Page]]],
    do: Callable[[_Page, _Counts], _Counts],
    start: _Position | None,
    counts: _Counts,
    bulk: Bulk | None,
    told: Callable[[_Counts], object],
) -> _Counts:
    """Do all `pages` after `start`; what the server loses meanwhile is done again.

    :param pages: gives the pages after a position, each with its own.
    :param do: does one page, and returns what has been done with it.
    :param bulk: what `do` writes with; None: it writes nothing.
    :param told: called after each page.
    :raises StoppedError: if anything breaks, or a key is pressed: it can be resumed.
    :raises ValueError: for something that is wrong from the beginning.
    """
    steps = [_Step[_Position, _Counts](start, counts, 0)]
    try:
        while not _done(pages, do, steps, bulk, told):
            pass
    except _MISTAKES:
        raise
    except (Exception, KeyboardInterrupt) as error:
        last = steps[-1]
        reason = "Interrupted" if isinstance(error, KeyboardInterrupt) else _reason(error)
        raise StoppedError(reason, last.position, last.counts) from error
    return steps[-1].counts


def _done(
    pages: Callable[[Any], Iterable[tuple[Any, Any]]],
    do: Callable[[Any, Any], Any],
    steps: list[_Step[Any, Any]],
    bulk: Bulk | None,
    told: Callable[[Any], object],
) -> bool:
    """Do the rest, adding to `steps`; False if the last ones were lost, and are taken off."""
    for position, page in pages(steps[-1].position):
        counts = do(page, steps[-1].counts)
        trips = 0
        if bulk is not None:
            trips, kept = bulk.trips, bulk.take_kept()
            if kept is not None:
                while len(steps) > 1 and steps[-1].trips > kept:
                    steps.pop()
                return False
        steps.append(_Step(position, counts, trips))
        told(counts)
    return True


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

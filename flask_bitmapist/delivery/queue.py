"""The queue of background delivery: marks that wait for the flusher, in memory and in a journal."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ..locks import Lock
from ..marks import Deed, Settled, Who
from .journal import Journal, Page, adopt
from .spool import Spool, SpoolError

logger = logging.getLogger("flask_bitmapist")

#: Entries of the queue that are delivered together, and for which nobody waits.
BATCH = 5_000
#: Of how many dead processes one that begins takes over the marks: a job's process, which may end
#: after its first mark, has no time to take over more, and is not to leave more than it found.
_ADOPTED = 3


class Queue:
    """A queue as long as a page of its journal, of which each process has its own."""

    def __init__(self, spool: Spool | None) -> None:
        """:param spool: beside its file the journal is kept; None: in memory alone."""
        self._spool = spool
        self._beginning = Lock()
        self._journal: Journal | None = None
        #: Whether the page that was turned last is still to be cleared.
        self._turned = False
        #: Whether marks were put back since: they may be on that page.
        self._returned = False
        #: What is being delivered, and what was moved meanwhile that may undo it: should the former
        #: have to be kept, it would be the last.
        self._in_hand: list[Settled] = []
        self._overtook: list[Settled] = []
        #: A moment before which nothing was queued of what is queued now, and of what is being
        #: delivered; in seconds since the epoch.
        self.since = self.since_in_hand = time.time()
        #: In order; to be changed by the methods alone.
        self.marks: deque[Settled] = deque()

    def add(self, what: Deed, who: Who) -> bool:
        """Queue marks of one deed; False if there is no room."""
        journal = self._journal or self._begun()
        page = journal.page
        while not page.add(what, who):
            if page is journal.page:
                return False
            page = journal.page
        self.marks.append((what, who))
        while page is not journal.page:  # see `journal`
            page = journal.page
            page.add(what, who)
        return True

    def put(self, marks: Iterable[Settled]) -> Sequence[Settled]:
        """Queue `marks`; returns those for which there is no room, and all that follow them."""
        self._note_empty(self._journal or self._begun())
        left: list[Settled] = []
        for what, who in marks:
            if left or not self.add(what, who):
                left.append((what, who))
        return left

    def _note_empty(self, journal: Journal) -> bool:
        """Whether nothing is queued: then what will be is not made before now."""
        now = time.time()  # before the look: another thread may queue a mark after it
        if self.marks or journal.page.is_used:
            return False
        self.since = now
        journal.page.date(now)
        return True

    def drain(self, deliver: Callable[[Sequence[Settled]], object]) -> bool:
        """Hand what is queued now to `deliver`, oldest first; whether there was anything.

        Only one thread may do so at a time.
        """
        if self._journal is None or self._note_empty(self._journal):
            return False
        now = time.time()
        with self._turning(self._journal) as page:
            left = len(self.marks)
            if page is not None or self.since < self.since_in_hand:
                self.since_in_hand = self.since
            self.since = now
            while left and self.marks:
                with self._keeping:
                    batch = self._in_hand = self._take(min(left, BATCH))
                left -= len(batch)
                try:
                    deliver(batch)
                except BaseException:  # such as KeyboardInterrupt
                    self._put_back(batch)
                    self.since = self.since_in_hand
                    raise
                with self._keeping:
                    self._in_hand = []
                    again, self._overtook = self._overtook, []
                if again:
                    deliver(again)
        return page is not None

    def move(
        self, keep: Callable[[Sequence[Settled]], bool], marks: Sequence[Settled] = ()
    ) -> bool:
        """Hand what is queued now, and `marks`, to `keep`, also while another thread drains.

        :returns: whether it was taken.
        """
        journal = self._journal or self._begun()
        # Nobody else clears a page before all of it is kept.
        with self._keeping, self._turning(journal):
            queued = self._take(len(self.marks))
            moved = [*queued, *marks]
            if moved and not keep(moved):
                self._put_back(queued)
                return False
            self._overtook += _undoing(moved, self._in_hand)
        return True

    @contextmanager
    def _turning(self, journal: Journal) -> Iterator[Page | None]:
        """Turn the page, and clear it at the end if none of its marks is left in the queue.

        None, if this is being done already: by another thread, or by this one before a signal.
        """
        with self._keeping:
            if self._turned:
                page = None
            else:
                self._turned, self._returned = True, False
                page = journal.turn()
        try:
            yield page
        finally:
            if page is not None:
                with self._keeping:
                    self._turned = False
                    if not self._returned:
                        page.clear()

    def _put_back(self, marks: Sequence[Settled]) -> None:
        self.marks.extendleft(reversed(marks))
        self._returned = True

    def _take(self, most: int) -> list[Settled]:
        taken: list[Settled] = []
        while len(taken) < most:
            try:
                taken.append(self.marks.popleft())
            except IndexError:  # another thread has moved them
                break
        return taken

    def __bool__(self) -> bool:
        return bool(self.marks)

    def end(self) -> None:
        """The process ends, and what was queued has been delivered."""
        journal = self._journal
        # A mark that another thread is about to queue stands in the journal already.
        if journal is not None and not self.marks and not journal.page.is_used:
            journal.end()
            self._journal = None

    def _begun(self) -> Journal:
        with self._beginning:
            if self._journal is None:
                # Reentrant, for signal handlers; made here, as gevent may patch locks before.
                self._keeping = threading.RLock()
                self._turned = False
                journal = self._new_journal()
                if self._journal is None:
                    self._journal = journal
                else:  # a signal handler was faster, in this thread
                    journal.end()
            return self._journal

    def _new_journal(self) -> Journal:
        if self._spool is not None:
            with suppress(SpoolError):
                adopt(self._spool, _ADOPTED)
            try:
                return Journal.beside(self._spool)
            except OSError as error:
                logger.warning(
                    "no journal can be made beside %s (%s): marks that are queued are lost if the "
                    "process is killed",
                    self._spool.path,
                    error,
                )
        return Journal()

    def begin_anew(self) -> None:
        """This process is a child: its parent delivers what it queued."""
        self.marks = deque()
        self._in_hand, self._overtook = [], []
        if self._journal is not None:
            self._journal.leave()
            self._journal = None


def _undoing(moved: Sequence[Settled], earlier: Sequence[Settled]) -> list[Settled]:
    """Those of `moved` whose events both mark and unmark, here or among the `earlier` ones.

    So do those of a dimension that give several values.
    """
    values: dict[str, set[object]] = {what.event: set() for what, _ in earlier}
    for what, _ in (*earlier, *moved):
        if what.event in values:
            values[what.event].add((what.value, what.choice))
    return [mark for mark in moved if len(values.get(mark[0].event, ())) > 1]

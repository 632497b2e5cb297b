"""The marks of the last seconds, kept to be sent again if the server turns out to have lost them.

A server that takes over in a failover may lack what the former one took last, and one that starts
from a snapshot what came after it. So this process counts its trips in a key of the server. Each
trip adds one, in its own round trip: a count below the one that this process knows of is that of an
older state, and says how many trips it still has.
"""

from __future__ import annotations

import secrets
import time
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import redis

from ..ids import PLAIN
from ..locks import Lock
from ..marks import ONE, Deed, Id, Settled, count, parts
from ..registry import text
from ..trip import Trip, drop_idle, replies
from .forks import begin_anew_in_children
from .sent import UNPROVEN, Lost, Proof, Sent

#: How long marks are kept, as long as trips find that the server has them; in seconds.
_AGE = 60.0
#: Bytes that they take, at most; beyond them the oldest go. More than half a million plain ids.
_MOST = 4 * 2**20
#: What an id takes: a plain one, and a text besides its characters; and a mark by itself.
_PLAIN_ID, _TEXT, _LOOSE = 8, 60, 100
#: What the value of somebody in a dimension takes.
_CHOICE = 150
#: Marks are kept, and lost, in spans of so many seconds, or of so many marks.
_SPAN, _OF_SPAN = 1.0, 5_000
#: Seconds after which a server forgets the count of a process that has ended, and after which a
#: process tells it that it goes on.
_LIFE, _RENEWAL = 86_400, 3_600
#: The key of a random name for the server's data. If it is gone, somebody has deleted everything,
#: and nothing is to be sent again.
_ORIGIN = "flask_bitmapist:origin"


#: Dimension, kind of ids, and perhaps the month -> what was chosen for each id.
_Choices = dict[tuple[object, ...], dict[Id, Deed]]


class _Span:
    """Marks of one second, without an order: all of them mark, or all unmark.

    Values of dimensions are among either; the last one of each person counts.
    """

    def __init__(self, began: float, value: bool, made: float) -> None:
        self.began = began
        self.value = value
        #: A moment before which none of them was made.
        self.made = made
        #: When the last of them had been written, by the same clock.
        self.written = 0.0
        #: How many trips the server had when it had the last of them.
        self.count = 0
        #: How many marks, and about how many bytes they take.
        self.length = self.size = 0
        self._ids: dict[Deed, Any] = {}
        self._loose: list[Settled] = []
        #: Of each dimension and kind of ids, what was chosen last for each of them.
        self._choices: _Choices = {}
        #: What was chosen before for another month, and what was chosen later for a month alone.
        self._former: _Choices = {}
        self._of_months: _Choices = {}

    def add(self, marks: Iterable[Settled]) -> int:
        """Returns about how many bytes that takes."""
        before, ids_of = self.size, self._ids
        for what, who in marks:
            added: Any = [who] if isinstance(who, ONE) else who
            if what.choice is not None:
                self._choose(what, added)
                continue
            ids: Any = ids_of.get(what)
            is_plain = what.kind == PLAIN
            if ids is None:
                ids = ids_of[what] = array("Q") if is_plain else []
            if not isinstance(added, list):
                ids.frombytes(added.astype("uint64").tobytes())
            elif is_plain:
                ids.fromlist(added)
            else:
                ids += added
                self.size += sum(map(len, added))
            self.length += len(added)
            self.size += (_PLAIN_ID if is_plain else _TEXT) * len(added)
        return self.size - before

    def add_loose(self, marks: Sequence[Settled]) -> int:
        """As `add`, of `marks` that `_are_loose`."""
        self._loose += marks
        self.length += len(marks)
        self.size += _LOOSE * len(marks)
        return _LOOSE * len(marks)

    def _choose(self, what: Deed, who: Any) -> None:
        ids = who if isinstance(who, list) else who.tolist()
        if what.hour is not None and not what.unique:
            of_month = self._of_months.setdefault(_set_of(what), {})
            before = len(of_month)
            of_month |= dict.fromkeys(ids, what)
            self._grow(len(of_month) - before)
            return
        chosen = self._choices.setdefault((what.event, what.kind), {})
        added = 0
        for id_ in ids:
            former = chosen.get(id_)
            if former is None:
                added += 1
            elif former.hour != what.hour:
                self._former.setdefault(_set_of(former), {})[id_] = former
                added += 1
            chosen[id_] = what
        if self._of_months:
            decided = self._of_months.get(_set_of(what), {})
            for id_ in ids:
                decided.pop(id_, None)
        self._grow(added)

    def _grow(self, added: int) -> None:
        """So many more values are kept, or fewer."""
        self.length += added
        self.size += _CHOICE * added

    def is_over(self, now: float) -> bool:
        return now - self.began > _SPAN or self.length >= _OF_SPAN

    def marks(self) -> list[Settled]:
        marks: list[Settled] = [(what, list(ids)) for what, ids in self._ids.items()]
        marks += self._loose
        for choices in (self._former, self._choices, self._of_months):  # the later ones decide
            chosen: dict[Deed, list[Any]] = {}
            for of_set in choices.values():
                for id_, what in of_set.items():
                    chosen.setdefault(what, []).append(id_)
            marks += chosen.items()
        return marks


def _set_of(what: Deed) -> tuple[object, ...]:
    return what.event, what.kind, what.hour


class Recent:
    """What this process has written in the last seconds, and whether its server still has it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: Whether a loss will show. If not, each fault may be one.
        self.is_counted = True
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Keep nothing: a child's parent sees to its own marks."""
        self._key = f"flask_bitmapist:trips:{secrets.token_hex(8)}"
        self._spans: deque[_Span] = deque()
        self._size = 0
        #: When marks were written last.
        self._added = 0.0
        self._lost: list[Lost] = []
        #: How many of this process's trips the server has had, as far as is known.
        self.count = 0
        #: How many it has kept, if it turned out to have lost some; see `take_kept`.
        self._kept: int | None = None
        #: When to tell the server that the process goes on; 0: at once.
        self._renewal = 0.0
        self._origin: object = None
        #: Of a cluster: who serves what, and the masters among them.
        self._slots: object = None
        self._masters: set[str] = set()
        #: Changes with each loss: trips that were under way meanwhile may be lost too.
        self.era: object = object()

    def trip(self, client: Any) -> Trip:
        """A trip that is counted, if one server takes all of it."""
        if isinstance(client, redis.Redis):
            return _CountedTrip(client, self)
        self.is_counted = False
        self._look_at_nodes(client)
        return Trip(client)

    def _look_at_nodes(self, client: Any) -> None:
        """See whether a node of a cluster has taken over from another."""
        nodes = getattr(client, "nodes_manager", None)
        slots = getattr(nodes, "slots_cache", None)
        if slots is self._slots:  # redis-py makes a new one when it asks again
            return
        masters = {node.name for node in client.get_primaries()}
        if self._masters and masters != self._masters:
            self.suspect()
        self._slots, self._masters = slots, masters

    def add(self, marks: Sequence[Settled], era: object, made: float) -> None:
        """Keep `marks`, which have been written; `era` is the one in which that began.

        :param made: a moment before which none of them was made, in seconds since the epoch.
        """
        now = time.monotonic()
        with self._lock:
            if era is not self.era:
                self._lost.append(Lost(made, marks, time.time()))
                return
            self._added = now
            for part in [marks] if count(marks) <= _OF_SPAN else parts(marks, _OF_SPAN):
                if len(part) == 1:
                    self._add(part, now, made)
                    continue
                deeds = {id(what): what for what, _ in part}.values()  # to hash them takes longer
                are_loose = _are_loose(part, deeds)
                for some in [part] if are_loose else _alike(part, deeds):
                    self._add(some, now, made, are_loose=are_loose)

    def _add(
        self, marks: Sequence[Settled], now: float, made: float, *, are_loose: bool = False
    ) -> None:
        spans = self._spans
        value = next((what.value for what, _ in marks if what.choice is None), None)
        if not spans or (value is not None and spans[-1].value != value) or spans[-1].is_over(now):
            spans.append(_Span(now, value is not False, made))
        span = spans[-1]
        span.made = min(span.made, made)
        span.written = time.time()
        self._size += span.add_loose(marks) if are_loose else span.add(marks)
        span.count = self.count
        while len(spans) > 1 and (self._size > _MOST or now - spans[0].began > _AGE):
            self._size -= spans.popleft().size

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._spans

    @property
    def is_old(self) -> bool:
        """Whether all that is kept was written so long ago that one more look is enough."""
        return not self.is_empty and time.monotonic() - self._added >= _AGE

    def forget_old(self) -> None:
        """Forget all of it, if it is old: the server has been asked since, and still has it."""
        with self._lock:
            if self.is_old:
                self._spans.clear()
                self._size = 0

    def suspect(self) -> None:
        """The server, or part of it, may have fallen back: all that is kept must be sent again."""
        with self._lock:
            self._lose(-1)

    def take_lost(self) -> list[Lost]:
        """The marks to be sent again, in order; they are forgotten here."""
        if not self._lost:
            return []
        with self._lock:
            lost, self._lost = self._lost, []
        return lost

    def give_back(self, lost: Sequence[Lost]) -> None:
        """What `take_lost` returned could not be sent."""
        with self._lock:
            self._lost = [*lost, *self._lost]

    def proof(self) -> Proof:
        """How to see whether the server still has what was written until now."""
        if not self.is_counted or self._origin is None:
            return UNPROVEN
        return Proof(self._key, self.count, text(self._origin))

    def take_kept(self) -> int | None:
        """How many trips the server had left at its last loss; None: there was none since asked."""
        with self._lock:
            kept, self._kept = self._kept, None
        return kept

    def _lose(self, count: int) -> None:
        """All but the first `count` trips are lost."""
        self.era = object()
        for span in self._spans:
            if span.count > count:
                self._lost.append(Lost(span.made, span.marks(), span.written))
                self._size -= span.size
        self._spans = deque(span for span in self._spans if span.count <= count)

    def expected(self) -> tuple[object, int]:
        """The era, and the least count that the next trip finds if nothing is lost."""
        if self._renewal and time.monotonic() - self._renewal > _LIFE / 2:  # it may have expired
            self.begin_anew()
        return self.era, self.count + 1

    def queue(self, pipe: Trip) -> int:
        """Queue what counts a trip; returns how many commands that takes."""
        pipe.repeat_command("INCR", self._key)
        if time.monotonic() < self._renewal:
            return 1
        pipe.repeat_command("EXPIRE", self._key, _LIFE)
        pipe.execute_command("SETNX", _ORIGIN, secrets.token_hex(8))
        pipe.repeat_command("GET", _ORIGIN)
        return 4

    def settle(self, client: Any, told: Sequence[Any], era: object, expected: int) -> None:
        """Take the replies to what `queue` queued; `era` and `expected` are those at its begin."""
        count = told[0]
        if not isinstance(count, int):  # an error, as the other replies are
            return
        if count >= expected:
            if era is self.era:
                self.count = max(self.count, count)
                if len(told) > 1:
                    self._origin = told[-1]
                    self._renewal = time.monotonic() + _RENEWAL
            # Else it has reached the former server, and `add` sees to its marks.
            return
        is_emptied = self._is_emptied(client)
        with self._lock:
            if era is not self.era:  # another trip has seen to it
                self.count = max(self.count, count)
                return
            self.count, self._renewal = count, 0.0
            self._kept = count - 1 if self._kept is None else min(count - 1, self._kept)
            if is_emptied:
                self._spans, self._size = deque(), 0
            else:
                self._lose(count - 1)
        drop_idle(client)

    def _is_emptied(self, client: Any) -> bool:
        """Whether somebody has deleted everything: then nothing is to be brought back."""
        try:
            return replies(client, [("GET", _ORIGIN)]) != [self._origin]
        except redis.RedisError:
            return False


def sorted_out(client: Any, sent: Sequence[Sent]) -> tuple[list[int], list[int]]:
    """The rows of `sent` that the server has lost, and those that need be kept no longer.

    :raises redis.RedisError: if it does not answer.
    """
    keys = sorted({one.proof.trips for one in sent})
    origin, *counts = replies(client, [("GET", key) for key in (_ORIGIN, *keys)])
    has = {key: int(held or 0) for key, held in zip(keys, counts, strict=True)}
    lost, done = [], []
    now = time.time()
    for row, at, proof in sent:
        age = abs(now - at)
        # If somebody has deleted everything, nothing is to be brought back.
        is_there = proof == UNPROVEN or (origin is not None and text(origin) == proof.origin)
        if is_there and has[proof.trips] < proof.number and age < _LIFE / 2:
            lost.append(row)
        elif not is_there or age >= _AGE:
            done.append(row)
    return lost, done


class _CountedTrip(Trip):
    def __init__(self, client: Any, recent: Recent) -> None:
        super().__init__(client)
        self._recent = recent

    def execute(self) -> list[Any]:
        recent = self._recent
        era, expected = recent.expected()
        extra = recent.queue(self)
        found = super().execute()
        told = found[-extra:]
        del found[-extra:]
        recent.settle(self._client, told, era, expected)
        return found


def _are_loose(marks: Sequence[Settled], deeds: Collection[Deed]) -> bool:
    """Whether most of `marks` have a deed of their own: put together they would take as much room.

    All of them mark.
    """
    return len(deeds) * 2 > count(marks) and all(
        what.value and what.kind == PLAIN and what.choice is None for what in deeds
    )


def _alike(marks: Sequence[Settled], deeds: Collection[Deed]) -> Iterable[Sequence[Settled]]:
    """`marks` in parts that may each be in one span.

    Those of each deed are put together, as each by itself takes longer. But if some mark and some
    unmark, their order matters.
    """
    if len({what.value for what in deeds if what.choice is None}) > 1:
        return ([mark] for mark in marks)
    many: list[Settled] = []
    singles: dict[Deed, list[Any]] = {}
    last, ids = None, []
    for what, who in marks:
        if not isinstance(who, ONE) or what.choice is not None:
            many.append((what, who))
            continue
        if what is not last:
            last, ids = what, singles.setdefault(what, [])
        ids.append(who)
    return [[*many, *singles.items()]]

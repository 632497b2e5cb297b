"""Settled marks -> bits: grouped by key, in BITFIELD batches, in as few round trips as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import redis

from ..ids import IdMap
from ..marks import Deed, Id, Settled, SettledMark, count, parts, singles
from ..periods import Grain, marked_periods, unique_key
from ..registry import PLAIN, Registry, Wanted, mismatch, space_of
from ..server import Server
from ..trip import Trip
from .bits import Bits
from .expiry import Expiries
from .reliance import Offsets, Reliance
from .unmarking import Key, Targets, Unmarking, Values

logger = logging.getLogger("flask_bitmapist")

#: Subcommands of one BITFIELD: more would block the server for longer without being faster.
_BITS_PER_COMMAND = 1_000

#: Commands to send: each a bitmap, and bits of it.
Writes = list[tuple[Key, Bits]]
#: Marks in one round trip, with three or four bits each: about 50 ms of the server's time.
_MARKS_PER_TRIP = 5_000
#: Likewise for unmarks, each of which reads the days of a week and a month.
_UNMARKS_PER_TRIP = 500
#: A batch of more marks than this may take longer than a request can wait for one reply.
BULK = 1_000
#: Deeds of which the process remembers what their marks rely on.
_MOST_REMEMBERED = 4_096
#: How often a batch is rewritten because the server turned out to have other data, or because other
#: processes mark what this one unmarks.
_ATTEMPTS = 5


@dataclass
class _Batch:
    """What is to be written, and what it relies on."""

    relies_on: Reliance
    offsets: Offsets
    #: None: nothing is unmarked, or only in bitmapist's way.
    unmarking: Unmarking | None = None
    writes: Writes = field(default_factory=list)
    #: Bits to unmark under names that nobody has registered: key -> its event, and offsets.
    strays: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    #: Why marks are refused for good.
    refusals: list[str] = field(default_factory=list)

    def reads(self) -> list[tuple[str, list[int]]]:
        """The bits to read in each trip: the name of the key, and as many as one command reads."""
        if self.unmarking is None and not self.strays:
            return []
        reads = self.unmarking.reads() if self.unmarking is not None else {}
        reads |= {key: bits for key, (_, bits) in self.strays.items()}
        return [(name, part) for name, offsets in reads.items() for part in _slices(offsets)]

    def found_strays(self, values: Values) -> set[str]:
        """Events that nobody has registered but that have marks, as bitmapist's do."""
        return {event for key, (event, _) in self.strays.items() if any(values[key].values())}


class Writer:
    """Writes batches of settled marks to one server."""

    def __init__(
        self,
        server: Server,
        *,
        registry: Registry,
        id_map: IdMap,
        clock: Callable[[], datetime],
        zone: tzinfo,
        max_id: int,
        ttl: Mapping[Grain, timedelta],
    ) -> None:
        """
        :param clock: the naive local time of the calendar `zone`.
        :param max_id: largest offset that is written.
        :param ttl: how long after its end a period's bitmap is kept, by grain.
        """
        self._server = server
        self._registry = registry
        self._id_map = id_map
        self._clock = clock
        self._max_id = max_id
        self._expiries = Expiries(ttl, zone)
        self._may_expire = bool(ttl)
        #: Of a deed: what its marks rely on, and the history in which they may.
        self._known: dict[Deed, tuple[object, Reliance]] = {}
        #: The ``maxmemory-policy`` seen last.
        self._eviction = ""
        self._complaints: set[str] = set()
        #: Marks refused for good (by the registry or the limit) in this process.
        self.refused = 0

    def write(self, marks: Sequence[Settled]) -> None:
        """Set or clear the bits of `marks`; if two have the same bit, the later wins.

        :raises redis.RedisError: if the server does not answer, or does not take a command. Some
            bits may be set then; writing the same marks again is harmless.
        """
        if not marks:
            return
        client = self._server.quick
        self._warn_of_eviction()
        if len(marks) == 1 and isinstance(marks[0][1], int):  # most are
            self._write(client, marks)
            return
        if count(marks) > BULK:
            client.ping()  # a silent server must not get the long timeout of bulk writes
            client = self._server.patient
        unmarks = any(_keeps_other_days(what) for what in {what for what, _ in marks})
        for part in parts(marks, _UNMARKS_PER_TRIP if unmarks else _MARKS_PER_TRIP):
            self._write(client, part)

    def _write(self, client: Any, marks: Sequence[Settled]) -> None:
        for _ in range(_ATTEMPTS):
            batch = self._batch(client, marks)
            if self._wrote(client, batch):
                for reason in batch.refusals:
                    self._refuse(reason)
                return
            self.forget_known()
        raise redis.RedisError("the server's data keeps changing while marks are written")

    def _warn_of_eviction(self) -> None:
        """Say once that a server will delete irreplaceable data when it is full."""
        policy = self._server.facts.eviction
        if policy == self._eviction:
            return
        self._eviction = policy
        if policy.startswith("allkeys"):
            logger.warning(
                "maxmemory-policy of %s is %s: when its memory is full it deletes bitmaps and "
                "what says whose bits they hold. Use noeviction, and a server of its own",
                self._server.facts,
                policy,
            )

    def forget_known(self) -> None:
        """The server may have come back with other data: ask it again."""
        self._server.forget()
        self._registry.forget_known()
        self._id_map.forget_known()
        self._expiries.forget_known()

    def _batch(self, client: Any, marks: Sequence[Settled]) -> _Batch:
        """The bits that `marks` need, as far as this process knows the server's data."""
        groups = _grouped(marks)
        relies_on = self._reliance(client, (*groups,))
        kinds = relies_on.kinds
        fit = {what: ids for what, ids in groups.items() if kinds[what.event] == what.kind}
        batch = _Batch(relies_on, self._offsets(client, fit))
        if all(what.value for what in fit):
            for what, ids in fit.items():
                self._set(batch, what, ids)
        else:
            self._decide(batch, [mark for mark in singles(marks) if _of_day(mark[0]) in fit])
        if len(fit) < len(groups):
            self._note_unfit(batch, groups)
        return batch

    def _reliance(self, client: Any, deeds: tuple[Deed, ...]) -> Reliance:
        """What a batch of `deeds` relies on; of one deed it is remembered."""
        history = self._registry.history
        if len(deeds) == 1:
            known = self._known.get(deeds[0])
            if known is not None and known[0] is history:
                return known[1]
        wanted = _wanted(deeds)
        kinds = self._registry.admit(client, wanted, self._clock)
        days = {
            event: want.first_day
            for event, want in wanted.items()
            if want.first_day is not None and want.kind == kinds[event]
        }
        relies_on = Reliance(self._registry, kinds, days)
        if len(deeds) == 1 and relies_on.is_entered and None not in kinds.values():
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[deeds[0]] = history, relies_on
        return relies_on

    @staticmethod
    def _note_unfit(batch: _Batch, groups: Mapping[Deed, list[Any]]) -> None:
        for what, ids in groups.items():
            kind = batch.relies_on.kinds[what.event]
            if kind is None:
                _note_strays(batch, what, ids)
            elif kind != what.kind:
                batch.refusals += [mismatch(what.event, what.kind, kind)] * len(ids)

    def _offsets(
        self, client: Any, groups: Mapping[Deed, Iterable[Any]]
    ) -> dict[str, dict[str, int]]:
        """The offsets of mapped ids, by kind; unmarking alone gives an id no offset."""
        given: dict[str, dict[bool, dict[str, None]]] = {}
        for what, ids in groups.items():
            if what.kind == PLAIN:
                continue
            of_kind = given.setdefault(what.kind, {True: {}, False: {}})
            of_kind[what.value].update(dict.fromkeys(ids))
        offsets: dict[str, dict[str, int]] = {}
        for kind, of_kind in given.items():
            found: dict[str, int] = {}
            for assigned, ids in of_kind.items():
                listed = [id_ for id_ in ids if id_ not in found]
                found |= self._id_map.offsets(
                    client,
                    space_of(kind),
                    listed,
                    assigned=assigned,
                    at_first=lambda space: self._registry.check_map_begins(
                        client, space, self._clock
                    ),
                )
            if found:
                offsets[kind] = found
        return offsets

    def _set(self, batch: _Batch, what: Deed, ids: Sequence[Id]) -> None:
        """Add to `batch` what sets the bits of `ids`, which did `what`."""
        offsets: Any = ids
        if what.kind != PLAIN:
            known = batch.offsets[what.kind]
            offsets = [known[id_] for id_ in cast(Sequence[str], ids)]
        if max(offsets) > self._max_id:
            allowed = [offset for offset in offsets if offset <= self._max_id]
            batch.refusals += [_too_large(what)] * (len(offsets) - len(allowed))
            offsets = allowed
        keys = self._lasting(_keys(what))
        for part in _slices(offsets):
            bits = Bits(part)
            batch.writes += [(key, bits) for key in keys]

    def _lasting(self, keys: Iterable[Key]) -> Iterable[Key]:
        if not self._may_expire:
            return keys
        return [key for key in keys if not self._expiries.has_passed(key.period)]

    def _decide(self, batch: _Batch, marks: Iterable[SettledMark]) -> None:
        """Add to `batch` what writes the bits of `marks`, each of which may undo earlier ones."""
        bits: Targets = {}
        for what, id_ in marks:
            offset = _offset(batch, what, id_)
            if offset is None:  # it has never been marked
                continue
            if offset > self._max_id:
                batch.refusals.append(_too_large(what))
                continue
            keys = _keys(what)
            if _keeps_other_days(what):
                for key in keys:
                    if key.period is None or key.period.grain in ("hour", "day"):
                        bits.get(key, {}).pop(offset, None)
                if batch.unmarking is None:
                    batch.unmarking = Unmarking(days_expire=self._expiries.covers("day"))
                batch.unmarking.add(what.event, keys, offset)
                continue
            for key in self._lasting(keys):
                bits.setdefault(key, {})[offset] = what.value
                if batch.unmarking is not None:
                    batch.unmarking.cancel(key, offset)
        batch.writes += _writes(bits)

    def _wrote(self, client: Any, batch: _Batch) -> bool:
        """Whether the server agreed with what this process knew, so that `batch` is now written.

        If not, the bits are restored. The trip that writes also checks: an earlier answer may be
        out of date, and a proxy can hide that another server answers.
        """
        writes = batch.writes
        for _ in range(_ATTEMPTS):
            values = self._trip(client, batch, writes)
            if values is None:
                return False
            if strays := batch.found_strays(values):
                self._registry.enter_plain(client, strays, self._clock)
                return False
            if batch.unmarking is None:
                return True
            writes = _writes(batch.unmarking.outstanding(values))
            if not writes:
                return True
        return False

    def _trip(self, client: Any, batch: _Batch, writes: Writes) -> Values | None:
        """Make `writes` and read the bits of `batch`; None if what it relies on no longer holds."""
        pipe = Trip(client)
        batch.relies_on.enter(pipe)
        for key, bits in writes:
            bits.queue(pipe, key.name)
        without_expiry = self._expiries.queue(pipe, (key for key, _ in writes))
        reads = batch.reads()
        for name, offsets in reads:
            _queue_reads(pipe, name, offsets)
        compares_calendar = self._registry.ask_calendar(pipe)
        batch.relies_on.ask(pipe, batch.offsets)

        rest = iter(pipe.execute())
        entered = batch.relies_on.entered(rest)
        before = [*islice(rest, len(writes))]
        expiring = without_expiry(rest)
        values = _values(reads, islice(rest, len(reads)))
        calendar = next(rest) if compares_calendar else None
        told = [*rest]
        if not batch.relies_on.holds(told, batch.offsets):
            undo = Trip(client)
            for (key, bits), reply in zip(writes, before, strict=True):
                if former := bits.restoring(reply):
                    former.queue(undo, key.name)
            batch.relies_on.withdraw(undo, entered, told)
            undo.execute()
            undo.check()
            return None
        batch.relies_on.remember()
        pipe.check()
        if compares_calendar:
            self._registry.compare_calendar(calendar)
        if expiring:
            self._expire(client, expiring)
        return values

    def _expire(self, client: Any, expiring: Iterable[tuple[str, int]]) -> None:
        pipe = client.pipeline(transaction=False)
        for name, moment in expiring:
            pipe.execute_command("EXPIREAT", name, moment)
        pipe.execute()

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        if reason not in self._complaints and len(self._complaints) < 1_000:
            self._complaints.add(reason)
            logger.error("a mark was refused: %s", reason)


@lru_cache(maxsize=4096)
def _keys(what: Deed) -> tuple[Key, ...]:
    """The bitmaps of a mark; the day's comes first, which `Unmarking` relies on."""
    event, hour = what.event, what.hour
    undated = (Key(unique_key(event), None),) if what.unique or hour is None else ()
    dated = marked_periods(hour, what.hourly) if hour is not None else ()
    return (*(Key(period.key(event), period) for period in dated), *undated)


def _keeps_other_days(what: Deed) -> bool:
    return not what.value and what.exact and what.hour is not None


def _wanted(deeds: Iterable[Deed]) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {}
    for what in dict.fromkeys(deeds):
        held = wanted.get(what.event)
        day = what.hour.date() if what.value and what.hour is not None else None
        if held is None:
            wanted[what.event] = Wanted(what.kind, what.value, day)
        elif what.value:
            days = [known for known in (held.first_day, day) if known is not None]
            kind = held.kind if held.marked else what.kind
            wanted[what.event] = Wanted(kind, True, min(days, default=None))
    return wanted


def _grouped(marks: Iterable[Settled]) -> dict[Deed, list[Any]]:
    """Who did each deed; the hour is told only where its bitmap is kept."""
    groups: dict[Deed, list[Any]] = {}
    for what, who in marks:
        ids = groups.setdefault(what, [])
        if isinstance(who, int | str):
            ids.append(who)
        else:
            ids.extend(who if isinstance(who, list) else who.tolist())
    of_days: dict[Deed, list[Any]] = {}
    for what, ids in groups.items():
        of_days.setdefault(_of_day(what), []).extend(ids)
    return of_days


@lru_cache(maxsize=4096)
def _of_day(what: Deed) -> Deed:
    if what.hour is None or what.hourly:
        return what
    return what._replace(hour=what.hour.replace(hour=0))


def _note_strays(batch: _Batch, what: Deed, ids: Iterable[int]) -> None:
    # A mapped id has no bit under a name that nobody has registered.
    if what.kind == PLAIN:
        for key in _keys(what):
            batch.strays.setdefault(key.name, (what.event, set()))[1].update(ids)


def _too_large(what: Deed) -> str:
    return f"{what.event!r}: the offset of an id is above BITMAPIST_MAX_ID"


def _offset(batch: _Batch, what: Deed, id_: Id) -> int | None:
    if isinstance(id_, int):
        return id_
    return batch.offsets.get(what.kind, {}).get(id_)


def _values(reads: Iterable[tuple[str, list[int]]], replies: Iterable[Any]) -> Values:
    values: dict[str, dict[int, bool]] = {}
    for (name, offsets), reply in zip(reads, replies, strict=True):
        # A key that holds no bitmap has no bit. The writes will report any other fault.
        held = [0] * len(offsets) if isinstance(reply, Exception) else reply
        bits = held if isinstance(held, list) else [held]
        values.setdefault(name, {}).update(zip(offsets, map(bool, bits), strict=True))
    return values


def _slices(items: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(items)
    for first in range(0, len(listed), _BITS_PER_COMMAND):
        yield listed[first : first + _BITS_PER_COMMAND]


def _writes(targets: Targets) -> Writes:
    return [
        (key, Bits(*zip(*part, strict=True)))
        for key, bits in targets.items()
        for part in _slices(bits.items())
    ]


def _queue_reads(pipe: Any, key: str, offsets: Sequence[int]) -> None:
    if len(offsets) == 1:
        pipe.execute_command("GETBIT", key, offsets[0])
        return
    arguments: list[object] = []
    for offset in offsets:
        arguments += ("GET", "u1", offset)
    pipe.execute_command("BITFIELD", key, *arguments)

"""Settled marks -> bits: grouped by key, in BITFIELD batches, in as few round trips as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any

import redis

from ..ids import IdMap
from ..marks import Deed, Id, Settled, SettledMark, count, parts, singles
from ..periods import Grain, marked_periods, unique_key
from ..refusals import note_command
from ..registry import Registry, Wanted, mismatch, space_of
from ..server import Server
from ..trip import Trip
from .expiry import Expiries
from .reliance import Reliance
from .unmarking import Bits, Key, Unmarking, Values

logger = logging.getLogger("flask_bitmapist")

#: Subcommands of one BITFIELD: more would block the server for longer without being faster.
_BITS_PER_COMMAND = 1_000
#: Marks in one round trip, with three or four bits each: about 50 ms of the server's time.
_MARKS_PER_TRIP = 5_000
#: Likewise for unmarks, each of which reads the days of a week and a month.
_UNMARKS_PER_TRIP = 500
#: A batch of more marks than this may take longer than a request can wait for one reply.
BULK = 1_000
#: How often a batch is rewritten because the server turned out to have other data, or because other
#: processes mark what this one unmarks.
_ATTEMPTS = 5


@dataclass
class _Batch:
    """What is to be written, and what it relies on."""

    relies_on: Reliance
    #: None: nothing is unmarked, or only in bitmapist's way.
    unmarking: Unmarking | None = None
    bits: Bits = field(default_factory=dict)
    #: Bits to unmark under names that nobody has registered: key -> its event, and offsets.
    strays: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    #: Why marks are refused for good.
    refusals: list[str] = field(default_factory=list)

    def reads(self) -> dict[str, set[int]]:
        """The bits to read in each trip, by the name of the key."""
        reads = self.unmarking.reads() if self.unmarking is not None else {}
        return reads | {key: bits for key, (_, bits) in self.strays.items()}

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
        if count(marks) > BULK:
            client.ping()  # a silent server must not get the long timeout of bulk writes
            client = self._server.patient
        unmarks = any(_keeps_other_days(what) for what, _ in marks)
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
        wanted = _wanted(what for what, _ in marks)
        kinds = self._registry.admit(client, wanted, self._clock)
        batch = _Batch(
            Reliance(
                self._registry,
                kinds,
                {
                    event: want.first_day
                    for event, want in wanted.items()
                    if want.first_day is not None and want.kind == kinds[event]
                },
            ),
        )
        admitted = []
        for what, id_ in singles(marks):
            kind = kinds[what.event]
            if kind == what.kind:
                admitted.append((what, id_))
            elif kind is None:
                _note_stray(batch, what, id_)
            else:
                batch.refusals.append(mismatch(what.event, what.kind, kind))
        batch.relies_on.offsets = self._offsets(client, admitted)
        for what, id_ in admitted:
            self._add(batch, what, id_)
        return batch

    def _offsets(self, client: Any, marks: Iterable[SettledMark]) -> dict[str, dict[str, int]]:
        """The offsets of mapped ids, by kind; unmarking alone gives an id no offset."""
        given: dict[str, dict[str, bool]] = {}
        for what, id_ in marks:
            if isinstance(id_, str):
                ids = given.setdefault(what.kind, {})
                ids[id_] = ids.get(id_, False) or what.value
        offsets: dict[str, dict[str, int]] = {}
        for kind, ids in given.items():
            found: dict[str, int] = {}
            for assigned in {*ids.values()}:
                listed = [id_ for id_, is_marked in ids.items() if is_marked == assigned]
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

    def _add(self, batch: _Batch, what: Deed, id_: Id) -> None:
        """Add the bits of a mark to those of `batch`."""
        offset = _offset(batch, what, id_)
        if offset is None:  # it has never been marked
            return
        if offset > self._max_id:
            reason = f"{what.event!r}: the offset of an id is above BITMAPIST_MAX_ID"
            batch.refusals.append(reason)
            return
        keys = _keys(what)
        if _keeps_other_days(what):
            for key in keys:
                if key.period is None or key.period.grain in ("hour", "day"):
                    batch.bits.get(key, {}).pop(offset, None)
            if batch.unmarking is None:
                batch.unmarking = Unmarking(days_expire=self._expiries.covers("day"))
            batch.unmarking.add(what.event, keys, offset)
            return
        for key in keys:
            if self._may_expire and self._expiries.has_passed(key.period):
                continue
            batch.bits.setdefault(key, {})[offset] = what.value
            if batch.unmarking is not None:
                batch.unmarking.cancel(key, offset)

    def _wrote(self, client: Any, batch: _Batch) -> bool:
        """Whether the server agreed with what this process knew, so that `batch` is now written.

        If not, the bits are restored. The trip that writes also checks: an earlier answer may be
        out of date, and a proxy can hide that another server answers.
        """
        bits = batch.bits
        for _ in range(_ATTEMPTS):
            values = self._trip(client, batch, bits)
            if values is None:
                return False
            if strays := batch.found_strays(values):
                self._registry.enter_plain(client, strays, self._clock)
                return False
            if batch.unmarking is None:
                return True
            bits = batch.unmarking.outstanding(values)
            if not bits:
                return True
        return False

    def _trip(self, client: Any, batch: _Batch, bits: Bits) -> Values | None:
        """Write `bits` and read those of `batch`; None if what it relies on no longer holds."""
        pipe = Trip(client)
        batch.relies_on.enter(pipe)
        writes = [(key, part) for key, of_key in bits.items() for part in _slices(of_key.items())]
        for key, part in writes:
            _queue_bits(pipe, key.name, part)
        without_expiry = self._expiries.queue(pipe, bits)
        reads = [
            (name, part) for name, offsets in batch.reads().items() for part in _slices(offsets)
        ]
        for name, offsets in reads:
            _queue_reads(pipe, name, offsets)
        compares_calendar = self._registry.ask_calendar(pipe)
        batch.relies_on.ask(pipe)

        replies = pipe.execute()
        rest = iter(replies)
        batch.relies_on.entered(rest)
        before = [*islice(rest, len(writes))]
        expiring = without_expiry(rest)
        values = _values(reads, islice(rest, len(reads)))
        calendar = next(rest) if compares_calendar else None
        if not batch.relies_on.holds(rest):
            self._undo(client, batch, writes, before)
            return None
        batch.relies_on.remember()
        for command, reply in zip(pipe.commands, replies, strict=True):
            if isinstance(reply, Exception):
                note_command(reply, command)
                raise reply
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

    @staticmethod
    def _undo(
        client: Any,
        batch: _Batch,
        writes: Iterable[tuple[Key, list[tuple[int, bool]]]],
        before: Iterable[Any],
    ) -> None:
        """Restore the bits of `writes` to `before`, the values that SETBIT and BITFIELD replied."""
        pipe = client.pipeline(transaction=False)
        for (key, slice_), held in zip(writes, before, strict=True):
            values = held if isinstance(held, list) else [held]
            if not isinstance(held, Exception):
                wrong = [
                    (offset, bool(value))
                    for (offset, written), value in zip(slice_, values, strict=True)
                    if bool(value) != written
                ]
                if wrong:
                    _queue_bits(pipe, key.name, wrong)
        batch.relies_on.withdraw(pipe)
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


def _note_stray(batch: _Batch, what: Deed, id_: Id) -> None:
    # A mapped id has no bit under a name that nobody has registered.
    if isinstance(id_, int):
        for key in _keys(what):
            batch.strays.setdefault(key.name, (what.event, set()))[1].add(id_)


def _offset(batch: _Batch, what: Deed, id_: Id) -> int | None:
    if isinstance(id_, int):
        return id_
    return batch.relies_on.offsets.get(what.kind, {}).get(id_)


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


def _queue_bits(pipe: Any, key: str, bits: Sequence[tuple[int, bool]]) -> None:
    if len(bits) == 1:
        pipe.execute_command("SETBIT", key, bits[0][0], int(bits[0][1]))
        return
    arguments: list[object] = []
    for offset, value in bits:
        arguments += ("SET", "u1", offset, int(value))
    pipe.execute_command("BITFIELD", key, *arguments)


def _queue_reads(pipe: Any, key: str, offsets: Sequence[int]) -> None:
    if len(offsets) == 1:
        pipe.execute_command("GETBIT", key, offsets[0])
        return
    arguments: list[object] = []
    for offset in offsets:
        arguments += ("GET", "u1", offset)
    pipe.execute_command("BITFIELD", key, *arguments)

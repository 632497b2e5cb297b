"""Settled marks -> bits: grouping by key, BITFIELD batches, as few round trips as there can be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from ..ids import IdMap
from ..marks import SettledMark
from ..periods import Grain, Period, marked_periods, unique_key
from ..refusals import commands_of, note_command
from ..registry import Registry, mismatch, space_of
from ..server import Server

logger = logging.getLogger("flask_bitmapist")

#: Subcommands of one BITFIELD: more block the server for longer without being faster.
_BITS_PER_COMMAND = 1_000
#: Bits of one round trip: about 50 ms of the server's time.
_BITS_PER_TRIP = 20_000
#: A batch with more marks than this may take longer than a request can wait for one reply.
BULK = 1_000


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
        self._zone = zone
        self._max_id = max_id
        self._ttl = ttl
        self._complaints: set[str] = set()
        #: Marks refused for good (by the registry or the limit) in this process.
        self.refused = 0

    def write(self, marks: Sequence[SettledMark]) -> None:
        """Set or clear the bits of `marks`; of two on one bit the later wins.

        :raises redis.RedisError: if the server does not answer, or does not take a command. Some
            bits may be set then; writing the same marks again is harmless.
        """
        if not marks:
            return
        client = self._server.quick
        if len(marks) > BULK:
            client.ping()  # a server that is silent is not waited for with the patience for bulk
            client = self._server.patient
        bitmaps = self._write(client, marks)
        if bitmaps is not None:
            # The server has been emptied, as a test may do: what this process knows of it is no
            # more, and offsets of ids are other ones now.
            self._unset(client, bitmaps)
            self.forget_known()
            self._write(client, marks)

    def _write(self, client: Any, marks: Sequence[SettledMark]) -> _Bitmaps | None:
        """What was written, if the server turns out to know nothing of what this process knows."""
        admitted = self._admitted(client, marks)
        days = _days(admitted)
        bitmaps = self._bitmaps(client, admitted)
        trip = client.pipeline(transaction=False)
        queued = 0
        for key, bits in bitmaps.items():
            for slice_ in _slices(bits.items()):
                _queue_bits(trip, key.name, slice_)
                queued += len(slice_)
                if queued >= _BITS_PER_TRIP:
                    self._execute(trip)
                    queued = 0
            expires = self._expiry(key)
            if expires is not None:
                trip.expireat(key.name, expires)
        self._registry.note_days(trip, days)
        self._registry.ask_whether_it_is_there(trip)
        if not self._execute(trip)[-1]:
            return bitmaps
        self._registry.remember_days(days)
        return None

    def _unset(self, client: Any, bitmaps: _Bitmaps) -> None:
        """Take `bitmaps` back: what is empty then would pass for somebody's older data."""
        trip = client.pipeline(transaction=False)
        for key, bits in bitmaps.items():
            for slice_ in _slices((offset, False) for offset in bits):
                _queue_bits(trip, key.name, slice_)
        self._execute(trip)
        for key in bitmaps:
            trip.bitcount(key.name)
        for key, count in zip(bitmaps, self._execute(trip), strict=True):
            if count == 0:
                trip.delete(key.name)
        self._execute(trip)

    def _expiry(self, key: _Key) -> datetime | None:
        """When the bitmap is to go; None: never, or in no year that there is."""
        if key.period is None or key.period.grain not in self._ttl:
            return None
        try:
            return key.period.end.replace(tzinfo=self._zone) + self._ttl[key.period.grain]
        except (OverflowError, ValueError):
            return None

    def forget_known(self) -> None:
        """The server may have come back with other data: ask it anew."""
        self._server.forget()
        self._registry.forget_known()
        self._id_map.forget_known()

    def _admitted(self, client: Any, marks: Sequence[SettledMark]) -> list[SettledMark]:
        wanted: dict[str, str] = {}
        for mark in marks:
            wanted.setdefault(mark.event, mark.kind)
        kinds = self._registry.admit(client, wanted, self._clock)
        admitted = []
        for mark in marks:
            if mark.kind == kinds[mark.event]:
                admitted.append(mark)
            else:
                self._refuse(mismatch(mark.event, mark.kind, kinds[mark.event]))
        return admitted

    def _bitmaps(self, client: Any, marks: Sequence[SettledMark]) -> _Bitmaps:
        """The bits to write."""
        mapped = self._offsets(client, marks)
        bitmaps: _Bitmaps = {}
        for mark in marks:
            offset = mark.id if isinstance(mark.id, int) else mapped[mark.kind, mark.id]
            if offset > self._max_id:
                self._refuse(f"{mark.event!r}: the offset of an id is above BITMAPIST_MAX_ID")
                continue
            for key in _keys(mark.event, mark.hour, mark.hourly, mark.unique):
                bitmaps.setdefault(key, {})[offset] = mark.value
        return bitmaps

    def _offsets(self, client: Any, marks: Sequence[SettledMark]) -> dict[tuple[str, str], int]:
        by_kind: dict[str, list[str]] = {}
        for mark in marks:
            if isinstance(mark.id, str):
                by_kind.setdefault(mark.kind, []).append(mark.id)
        return {
            (kind, id_): offset
            for kind, ids in by_kind.items()
            for id_, offset in self._id_map.offsets(client, space_of(kind), ids).items()
        }

    def _execute(self, trip: Any) -> list[Any]:
        commands = commands_of(trip)
        replies: list[Any] = trip.execute(raise_on_error=False)
        for index, reply in enumerate(replies):
            if isinstance(reply, Exception):
                note_command(reply, commands, index)
                raise reply
        return replies

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        if reason not in self._complaints and len(self._complaints) < 1_000:
            self._complaints.add(reason)
            logger.error("a mark was refused: %s", reason)


class _Key(NamedTuple):
    name: str
    period: Period | None  # None: undated


#: The bits to write: key -> {offset: value}.
_Bitmaps = dict[_Key, dict[int, bool]]


@lru_cache(maxsize=4096)
def _keys(event: str, hour: datetime | None, hourly: bool, unique: bool) -> tuple[_Key, ...]:
    undated = (_Key(unique_key(event), None),) if unique or hour is None else ()
    dated = marked_periods(hour, hourly) if hour is not None else ()
    return (*(_Key(period.key(event), period) for period in dated), *undated)


def _days(marks: Sequence[SettledMark]) -> dict[str, date]:
    """The earliest day on which each event is marked."""
    days: dict[str, date] = {}
    for mark in marks:
        if mark.value and mark.hour is not None:
            day = mark.hour.date()
            days[mark.event] = min(day, days.get(mark.event, day))
    return days


def _slices(bits: Iterable[tuple[int, bool]]) -> Iterator[list[tuple[int, bool]]]:
    rest = iter(bits)
    while slice_ := list(islice(rest, _BITS_PER_COMMAND)):
        yield slice_


def _queue_bits(trip: Any, key: str, bits: Sequence[tuple[int, bool]]) -> None:
    if len(bits) == 1:
        trip.setbit(key, bits[0][0], int(bits[0][1]))
        return
    arguments: list[object] = []
    for offset, value in bits:
        arguments += ("SET", "u1", offset, int(value))
    trip.execute_command("BITFIELD", key, *arguments)

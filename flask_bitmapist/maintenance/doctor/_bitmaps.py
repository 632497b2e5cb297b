"""What the bitmaps take of the server, by event and period, and which take more than they need."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from ...config import Settings
from ...delivery.expiry import Expiries, is_wrong
from ...dimensions import DIMENSIONS
from ...ids import PLAIN
from ...packed_periods import is_packable, keys_of, packed_key, packed_keys
from ...periods import GRAINS, KEY_PREFIX, Period, unique_key
from ...registry import slots_of
from ...trip import Trip
from ..parts import in_parts
from ..stored import is_operation, name_and_period
from ._findings import EventMemory, Finding, several, sized

#: Keys that are asked about in one round trip.
_KEYS = 2_000
#: What TTL says of a key that does not expire.
_NEVER = -1
#: The end of a bitmap that is read to find its largest id.
_TAIL = 64
#: Long ids are reported only for bitmaps of more bytes, and with a smaller share of bits set.
_CHEAP, _SPARSE = 128 * 1024, 1 / 64
#: Events with such ids that have a warning of their own.
_LISTED = 5
#: The share of BITMAPIST_MAX_ID from which there is a warning.
_NEAR = 0.8
#: Bytes of bitmaps of past periods below which there is no need to pack them.
_WORTH_PACKING = 16 * 2**20


@dataclass(slots=True)
class _Event:
    """The bitmaps of one event."""

    bitmaps: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    #: The longest raw bitmap: its length in bytes, the rank of its period, and its key. Of equally
    #: long ones it is that of the longest period, which has most ids.
    longest: tuple[int, int, str] = (0, 0, "")


@dataclass(slots=True)
class Survey:
    """All bitmaps of a server."""

    found: defaultdict[str, _Event] = field(default_factory=lambda: defaultdict(_Event))
    #: Bytes, by the month in which their period ends, and by its length.
    by_month: Counter[tuple[date, str]] = field(default_factory=Counter)
    #: Bytes of those that are not packed and could be, by the last day of their period.
    raw: Counter[date] = field(default_factory=Counter)
    packed: int = 0
    #: Keys that are named like a bitmap, but hold something else.
    others: list[str] = field(default_factory=list)
    #: How many bitmaps do not expire when BITMAPIST_TTL says, or should be gone already.
    overdue: int = 0
    #: The names under which months of dated dimensions are kept: they stay, and are not packed.
    months: set[str] = field(default_factory=set)
    #: Whether the server says how much memory a bitmap takes; if not, its length is used.
    is_exact: bool = True

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(event.bytes.total() for event in self.found.values())

    def events(self, client: Any, kinds: Mapping[str, str]) -> list[EventMemory]:
        """Each event, largest first. One round trip for each 2,000 of them."""
        told: list[EventMemory] = []
        ranked = sorted(self.found.items(), key=lambda item: (-item[1].bytes.total(), item[0]))
        for batch in in_parts(ranked, _KEYS):
            ends = _ends(client, [(event.longest[0], event.longest[2]) for _, event in batch])
            for (name, event), (largest, bits) in zip(batch, ends, strict=True):
                told.append(
                    EventMemory(
                        name,
                        kinds.get(name, PLAIN),
                        event.bitmaps,
                        dict(event.bytes),
                        largest,
                        None if largest is None else bits / (largest + 1),
                    )
                )
        return told


def survey(client: Any, settings: Settings, watch: Callable[[int], None]) -> Survey:
    """Look at every bitmap: a SCAN, and one round trip for each 2,000 of them.

    :raises redis.RedisError: if the server does not answer.
    """
    told = Survey(months=slots_of(client.hgetall(DIMENSIONS)).month_names())
    expiries = Expiries(settings.ttl, settings.timezone)
    for is_packed in (False, True):
        keys = packed_keys(client) if is_packed else keys_of(client, KEY_PREFIX)
        for batch in in_parts(keys, _KEYS):
            _look(client, told, expiries, [*dict.fromkeys(batch)], is_packed=is_packed)
            watch(len(batch))
    return told


def _look(
    client: Any, told: Survey, expiries: Expiries, keys: Sequence[str], *, is_packed: bool
) -> None:
    named = [(key, *_parsed(key)) for key in keys if not is_operation(key)]
    named = [one for one in named if one[1]]
    if not named:
        return
    pipe = Trip(client)
    for key, _, _ in named:
        stored = packed_key(key) if is_packed else key
        pipe.execute_command("STRLEN", stored)
        if expiries:
            pipe.execute_command("TTL", stored)
        if told.is_exact:
            pipe.execute_command("MEMORY", "USAGE", stored)
    replies = iter(pipe.execute())
    asks_usage = told.is_exact
    for key, name, period in named:
        length = next(replies)
        left = next(replies) if expiries else _NEVER
        usage = next(replies) if asks_usage else None
        if isinstance(length, Exception) or isinstance(left, Exception):
            if "WRONGTYPE" not in str(length):
                pipe.check()
            told.others.append(key)
            continue
        if isinstance(usage, Exception):
            told.is_exact = False
        held = usage if isinstance(usage, int) else length
        _note(told, key, name, period, length, held, is_packed=is_packed)
        told.overdue += name not in told.months and _is_overdue(expiries, period, left)


def _note(
    told: Survey,
    key: str,
    name: str,
    period: Period | None,
    length: int,
    usage: int,
    *,
    is_packed: bool,
) -> None:
    event = told.found[name]
    event.bitmaps += 1
    event.bytes["undated" if period is None else period.grain] += usage
    told.packed += usage * is_packed
    if not is_packed:
        rank = -1 if period is None else GRAINS.index(period.grain)
        event.longest = max(event.longest, (length, rank, key))
    if period is not None:
        day = (period.end - timedelta(microseconds=1)).date()
        told.by_month[day.replace(day=1), period.grain] += usage
        if not is_packed and is_packable(key) and name not in told.months:
            told.raw[day] += usage


def _parsed(key: str) -> tuple[str, Period | None]:
    """The event of a bitmap ('' if `key` is not the key of one), and its period if it is dated."""
    name, period = name_and_period(key)
    return (name, period) if period is not None or key == unique_key(name) else ("", None)


def _is_overdue(expiries: Expiries, period: Period | None, left: int) -> bool:
    """Whether a bitmap with `left` seconds to live should expire at another time."""
    moment = None if period is None else expiries.moment(period)
    return moment is not None and is_wrong(left, moment)


def _ends(client: Any, longest: Sequence[tuple[int, str]]) -> list[tuple[int | None, int]]:
    """The largest id in each bitmap, and how many are in it; None where there is no bitmap."""
    asked = [(length, key) for length, key in longest if key]
    pipe = Trip(client)
    for length, key in asked:
        pipe.execute_command("GETRANGE", key, max(0, length - _TAIL), max(0, length - 1))
        pipe.execute_command("BITCOUNT", key)
    replies = pipe.execute() if asked else []
    pipe.check()
    tails = dict(
        zip((key for _, key in asked), zip(*[iter(replies)] * 2, strict=True), strict=True)
    )
    return [
        (_largest(length, tails[key][0]), tails[key][1]) if key else (None, 0)
        for length, key in longest
    ]


def _largest(length: int, tail: bytes) -> int:
    """The largest id in a bitmap of `length` bytes that ends with `tail`.

    Unmarking may leave more zero bytes at the end than `tail` has; they still take memory.
    """
    held = tail.rstrip(b"\0")
    if not held:
        return max(0, 8 * length - 1)
    zeros = (held[-1] & -held[-1]).bit_length() - 1
    return 8 * (length - len(tail) + len(held)) - 1 - zeros


def check(told: Survey, events: Sequence[EventMemory], settings: Settings) -> Iterator[Finding]:
    """Bitmaps that are longer than they need be, or no bitmaps at all."""
    bitmaps = several(sum(event.bitmaps for event in events), "bitmap")
    found = f"{bitmaps} of {several(len(events), 'event')} take {sized(told.total)}"
    if not told.is_exact:
        found += ", without what the server needs for keys (MEMORY USAGE is not allowed)"
    yield Finding("data", "ok", found)
    long = [
        finding
        for event in events
        if event.kind == PLAIN and event.largest_id is not None
        for finding in _of_ids(event, event.largest_id, settings)
    ]
    yield from long[:_LISTED]
    if (more := len(long) - _LISTED) > 0:
        yield Finding(
            "data",
            "warning",
            f"{several(more, 'more event')} with ids like that",
            "See the largest ids of all events with --json",
        )
    if told.others:
        named = ", ".join(map(repr, sorted(told.others)[:3]))
        yield Finding(
            "data",
            "warning",
            f"{several(len(told.others), 'key')} named like a bitmap hold something else: {named}",
            "Rename or delete them: marks of their events are refused",
        )
    if told.overdue:
        yield Finding(
            "data",
            "warning",
            f"{several(told.overdue, 'bitmap')} would live longer, or shorter, than BITMAPIST_TTL "
            "says",
            "Run: flask bitmapist prune --dry-run",
        )


def _of_ids(event: EventMemory, largest: int, settings: Settings) -> Iterator[Finding]:
    is_dense = (event.density or 0) >= _SPARSE
    if largest > _NEAR * settings.max_id:
        yield Finding(
            "data",
            "warning",
            f"{event.event!r} has the id {largest:,}, and BITMAPIST_MAX_ID is {settings.max_id:,}",
            "Raise BITMAPIST_MAX_ID before ids above it are refused; if ids are sparse, map them: "
            'BITMAPIST_ID_MAP="always", for events with new names',
        )
    elif not is_dense and (largest > settings.dense_limit or largest // 8 > _CHEAP):
        held = round((event.density or 0) * (largest + 1))
        yield Finding(
            "data",
            "warning",
            f"{event.event!r} has ids up to {largest:,}, of which {held:,} are in its longest "
            f"bitmap of {sized(largest // 8 + 1)}",
            'Map such ids: BITMAPIST_ID_MAP="always", for events with new names',
        )
    elif largest > settings.dense_limit:
        yield Finding(
            "data",
            "warning",
            f"{event.event!r} has ids up to {largest:,}, above BITMAPIST_DENSE_LIMIT "
            f"({settings.dense_limit:,})",
            "Raise BITMAPIST_DENSE_LIMIT if most of these ids are in use; if not, map them: "
            'BITMAPIST_ID_MAP="always"',
        )


def check_age(told: Survey, settings: Settings, before: datetime) -> Iterator[Finding]:
    """Whether packing would save something.

    :param before: periods that ended earlier are packed by ``flask bitmapist pack``.
    """
    old = sum(size for day, size in told.raw.items() if day < before.date())
    if told.packed:
        yield Finding("data", "ok", f"packed periods take {sized(told.packed)}")
    if settings.pack_after is None and old > _WORTH_PACKING:
        yield Finding(
            "data",
            "warning",
            f"bitmaps of past periods take {sized(old)}, and are not packed",
            "See what it would save: flask bitmapist pack --dry-run",
        )

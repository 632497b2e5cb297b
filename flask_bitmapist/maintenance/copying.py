"""Copies all bitmaps from one server to another, while both are in use.

Bits are added to what the target has, and nothing is taken away, so a copy can be stopped at any
moment and run again. What Flask-Bitmapist keeps beside the bitmaps is copied too: which events
there are, the ids behind mapped offsets, packed periods, who has been erased, saved boards and
annotations. Mapped ids keep their offsets.

1. Look at what there is (`Copy.survey`), and check that both sides fit together.
2. Go through the keys. Bits that the target lacks are sent, merged there, and read back.
3. Repeat that until a pass finds nothing missing: the source may have been marked meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from redis.cluster import RedisCluster
from redis.crc import key_slot

from ..annotations import ANNOTATIONS
from ..config import Settings
from ..delivery.merging import STAGED
from ..dimensions import Slots
from ..erased import ERASED, LAST, SALT, Erasure
from ..id_map.keys import map_keys
from ..id_map.promoting import moves, take_over, users_of
from ..ids import MAPPED, PLAIN
from ..packed_periods import PACKED_BEFORE, keys_of, packed_key, packed_keys
from ..periods import KEY_PREFIX, local
from ..registry import BELL, FIRST_DAYS, KINDS, KINDS_COPY, Registry, Wanted, mismatch, text
from ..saved import BOARDS
from ..swapping import announce, longest_life, merge
from ..trip import Trip, node_of
from .copied_values import settle_values, take_values
from .followed_map import FollowedMap
from .parts import in_parts, in_sized_parts
from .runs import StoppedError
from .sides import FaultError, Side
from .stored import event_of, is_operation

#: Keys asked about in one round trip; packed bitmaps are read whole.
_KEYS, _PACKED_KEYS = 1_000, 100
#: Bytes of bitmaps that are read in one round trip.
_BYTES = 8 * 2**20
#: How often the keys are gone through, while the source is being marked.
_PASSES = 3
#: Seconds that a bitmap waits on the target to be merged, should this process die.
_AGE = 60


@dataclass(slots=True)
class Survey:
    """What there is to copy.

    :ivar bitmaps: how many, packed ones included.
    :ivar bytes: how long they are together.
    :ivar packed: how many of them are packed.
    :ivar skipped: keys with the prefix that are no bitmaps of events.
    """

    bitmaps: int = 0
    bytes: int = 0
    packed: int = 0
    skipped: int = 0
    events: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {**asdict(self), "events": len(self.events)}


@dataclass(slots=True)
class Copied:
    """What a copy has done.

    :ivar bitmaps: how many were compared in the last pass, and how many `bytes` they have.
    :ivar source_bits: their bits on the source.
    :ivar target_bits: those on the target; more, if the target has marks of its own.
    :ivar written: how many bitmaps lacked bits and were sent them, in all passes.
    :ivar skipped: keys with the prefix that are no bitmaps of events.
    :ivar passes: how often all keys were gone through.
    :ivar still_marked: bitmaps that got new bits even in the last pass.
    :ivar unequal: bitmaps that lacked bits after these had been sent, and keys under which the
        target has something else.
    :ivar erased_meanwhile: somebody has been erased from the source during the copy, or since an
        earlier one.
    """

    bitmaps: int = 0
    bytes: int = 0
    source_bits: int = 0
    target_bits: int = 0
    written: int = 0
    skipped: int = 0
    passes: int = 0
    still_marked: int = 0
    unequal: list[str] = field(default_factory=list)
    erased_meanwhile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return asdict(self)

    @property
    def is_wanting(self) -> bool:
        """Whether the target lacks bits, or may have those of somebody who was erased."""
        return bool(self.unequal) or self.erased_meanwhile


class _Window(NamedTuple):
    """A stretch of the bytes of a bitmap."""

    #: Where it is on the source, and on the target.
    key: str
    target: str
    first: int
    size: int

    def reading(self, key: str) -> tuple[str, str, int, int]:
        return "GETRANGE", key, self.first, self.first + self.size - 1


class Copy:
    """A copy of all bitmaps from one server to another."""

    def __init__(
        self,
        source: Any,
        target: Any,
        settings: Settings,
        *,
        prefix: str = KEY_PREFIX,
        ignores_erasures: bool = False,
    ) -> None:
        """
        :param source: a client of the server to read from.
        :param target: a client of the server to write to, which waits.
        :param settings: those of the application.
        :param prefix: how the keys of the source begin; those of bitmapist4 with ``bitmapist_``.
        :param ignores_erasures: copy although persons who were erased from the target may be on
            the source.
        """
        self._source, self._target = Side("the source", source), Side("the target", target)
        self._settings = settings
        self._prefix = prefix
        self._ignores_erasures = ignores_erasures
        self._registry = Registry(str(settings.timezone))
        self._kinds: dict[str, str] = {}
        self._days: dict[str, date] = {}
        self._maps: dict[str, FollowedMap] = {}
        #: Whether the target already had an event of the source when the copy began.
        self._is_known = False
        #: Events that the target knows to have the same kind of ids.
        self._admitted: set[str] = set()

    @property
    def _is_ours(self) -> bool:
        """Whether the source may have more than bitmaps."""
        return self._prefix == KEY_PREFIX

    def survey(self) -> Survey:
        """Look at what there is, and whether it can be copied. Nothing is written.

        :raises ValueError: if both servers do not fit together.
        :raises StoppedError: if one of them does not answer.
        """
        found = Survey()
        with self._stopping(found):
            for keys, sizes in self._sized(self._raw_keys(), lambda key: key):
                for key, size in zip(keys, sizes, strict=True):
                    event = self._event(key)
                    if event is None or size is None:
                        found.skipped += not is_operation(key, self._prefix)
                    elif size:
                        found.bitmaps += 1
                        found.bytes += size
                        found.events.add(event)
            for keys, sizes in self._sized(self._packed_keys(), packed_key):
                for key, size in zip(keys, sizes, strict=True):
                    found.bitmaps += 1
                    found.packed += 1
                    found.bytes += size or 0
                    found.events.add(str(self._event(key)))
            self._check(found.events)
        return found

    def run(self, watch: Callable[[int], None] = lambda keys: None) -> Copied:
        """Copy, until a pass finds that the target lacks nothing.

        :param watch: called now and then with the number of keys gone through since.
        :raises ValueError: if both servers do not fit together.
        :raises StoppedError: if one of them does not answer, or a key is pressed: what has been
            copied stays, and the next run goes on.
        """
        copied = Copied()
        with self._stopping(copied):
            self._check_not_same()
            self._check(())
            last = self._last_erasure()
            # Bits that an earlier copy has brought may be those of persons erased since.
            copied.erased_meanwhile = self._take_erasures() and self._is_known
            self._admit(self._kinds)
            sides = (self._source, self._target)
            slots = take_values(*sides, self._registry) if self._is_ours else Slots({})
            for copied.passes in range(1, _PASSES + 1):
                copied.bitmaps = copied.bytes = copied.skipped = copied.still_marked = 0
                copied.source_bits = copied.target_bits = 0
                copied.unequal.clear()
                self._pass(copied, watch)
                if not copied.still_marked:
                    break
            now = local(None, self._settings.timezone)
            self._take_promotions((now - self._settings.visitor_age).date())
            self._target.patiently(lambda: self._registry.reindex(self._target.client, now))
            settle_values(*sides, slots)
            self._take_saved()
            took = self._take_erasures()
            copied.erased_meanwhile |= took or last != self._last_erasure()
        return copied

    @contextmanager
    def _stopping(self, counts: Any) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:
            raise StoppedError("Interrupted", None, counts) from error
        except FaultError as error:
            raise StoppedError(str(error), None, counts) from None

    # What is to be copied

    def _raw_keys(self) -> Iterator[str]:
        return self._source.keys(lambda client: keys_of(client, self._prefix))

    def _packed_keys(self) -> Iterator[str]:
        return self._source.keys(packed_keys) if self._is_ours else iter(())

    def _sized(
        self, keys: Iterator[str], stored: Callable[[str], str]
    ) -> Iterator[tuple[list[str], list[int | None]]]:
        for batch in in_parts(keys, _KEYS):
            listed = [*dict.fromkeys(batch)]
            yield listed, self._source.lengths(map(stored, listed))

    def _event(self, key: str) -> str | None:
        return event_of(key, self._prefix)

    # What must hold before

    def _check_not_same(self) -> None:
        """:raises ValueError: if the source is the target."""
        if not self._is_ours:  # other keys may be on the same server
            return
        name = f"flask_bitmapist:copy:{secrets.token_hex(8)}"
        self._target.patiently(lambda: self._target.client.set(name, "", ex=_AGE))
        (is_same,) = self._source.ask([("EXISTS", name)])
        self._target.patiently(lambda: self._target.client.delete(name))
        if is_same:
            raise ValueError("both are the same server: there is nothing to copy")

    def _check(self, events: Iterable[str]) -> None:
        """:raises ValueError: if the two servers do not fit together, as far as is known."""
        self._learn()
        held = self._target.patiently(lambda: self._registry.certain_kinds(self._target.client))
        self._is_known = not held.keys().isdisjoint(self._kinds)
        for event in sorted({*events, *self._kinds}):
            self._check_kind(event, held.get(event))
        for followed in self._maps.values():
            followed.check()
        self._check_erasures()

    def _check_kind(self, event: str, on_target: str | None) -> None:
        kind = self._kinds.get(event, PLAIN)
        if on_target is not None and on_target != kind:
            raise ValueError(mismatch(event, kind, on_target))

    def _learn(self) -> None:
        """Ask the source which events it has."""
        if not self._is_ours:
            return
        client = self._source.client
        kinds = self._source.patiently(lambda: self._registry.certain_kinds(client))
        days = self._source.patiently(lambda: client.zrange(FIRST_DAYS, 0, -1, withscores=True))
        self._kinds = kinds
        self._days = {text(name): date.fromordinal(int(day)) for name, day in days}
        for kind in {*kinds.values()} - {PLAIN} - self._maps.keys():
            self._maps[kind] = FollowedMap(self._source, self._target, kind)

    def _admit(self, events: Iterable[str]) -> None:
        """Register `events` on the target, with their kinds and first days on the source."""
        new = {event for event in events if event not in self._admitted}
        if not new:
            return
        if not new <= self._kinds.keys():
            self._learn()
        client = self._target.client
        wanted = {
            event: Wanted(self._kinds.get(event, PLAIN), True, self._days.get(event))
            for event in new
        }
        clock = lambda: local(None, self._settings.timezone)  # noqa: E731
        kinds = self._target.patiently(lambda: self._registry.admit(client, wanted, clock))
        for event, kind in kinds.items():
            self._check_kind(event, kind)
        days = [
            part
            for event in new & self._days.keys()
            for part in (self._days[event].toordinal(), event)
        ]
        pipe = Trip(client)
        for event, kind in kinds.items():
            pipe.execute_command("HSETNX", KINDS_COPY, event, kind)
        if days:
            pipe.execute_command("ZADD", FIRST_DAYS, "LT", *days)
        self._write(pipe)
        self._admitted |= new

    def _write(self, pipe: Trip) -> None:
        """Send what may be sent twice."""

        def sent() -> None:
            pipe.execute()
            pipe.check()

        if pipe.commands:
            self._target.patiently(sent)

    # Who has been erased

    def _erasures(self, side: Side) -> tuple[dict[str, bytes], dict[str, Erasure]]:
        """What `side` remembers: all fields, and the erasures by digest."""
        held = side.patiently(lambda: side.client.hgetall(ERASED))
        told = {text(name): value for name, value in held.items()}
        persons = {
            name: Erasure.loads(value) for name, value in told.items() if name not in (SALT, LAST)
        }
        return told, persons

    def _last_erasure(self) -> Any:
        return self._source.ask([("HGET", ERASED, LAST)])[0] if self._is_ours else None

    def _check_erasures(self) -> None:
        """:raises ValueError: if the copy could bring back who was erased from the target."""
        ours, persons = self._erasures(self._target)
        if not persons or self._ignores_erasures:
            return
        theirs, known = self._erasures(self._source) if self._is_ours else ({}, {})
        back = [
            name
            for name, erasure in persons.items()
            if ours.get(SALT) != theirs.get(SALT)
            or name not in known
            or known[name].moment < erasure.moment
        ]
        if back:
            raise ValueError(
                f"{len(back)} erased persons of the target may be on the source, and would come "
                "back: add --ignore-erasures, and erase them again afterwards"
            )

    def _take_erasures(self) -> bool:
        """Have the target remember whom the source has erased; returns whether it is news."""
        if not self._is_ours:
            return False
        theirs, known = self._erasures(self._source)
        ours, persons = self._erasures(self._target)
        if not known or (persons and ours[SALT] != theirs[SALT]):
            return False
        later = {
            name: theirs[name]
            for name, erasure in known.items()
            if name not in persons or persons[name].moment < erasure.moment
        }
        if not later:
            return False
        last = max(int(told.get(LAST, 0)) for told in (ours, theirs))
        pipe = Trip(self._target.client)
        for name, value in {SALT: theirs[SALT], **later, LAST: last}.items():
            pipe.execute_command("HSET", ERASED, name, value)
        pipe.execute_command("HSET", KINDS, BELL, last)
        self._write(pipe)
        return True

    # What people have saved

    def _take_saved(self) -> None:
        """Have the target keep the boards and annotations of the source, beside its own."""
        if not self._is_ours:
            return
        client = self._source.client
        boards = self._source.patiently(lambda: client.hgetall(BOARDS))
        noted = self._source.patiently(lambda: client.zrange(ANNOTATIONS, 0, -1, withscores=True))
        pipe = Trip(self._target.client)
        for id_, board in boards.items():
            pipe.execute_command("HSETNX", BOARDS, id_, board)
        for annotation, day in noted:
            pipe.execute_command("ZADD", ANNOTATIONS, int(day), annotation)
        self._write(pipe)

    def _take_promotions(self, since: date) -> None:
        """Have the target know which visitors, who came `since` a day, have become users."""
        if MAPPED not in self._maps:
            return
        keys, source, target = map_keys(MAPPED), self._source, self._target
        left = source.patiently(lambda: moves(source.client, keys))
        users = source.patiently(lambda: users_of(source.client, keys))
        target.patiently(lambda: take_over(target.client, keys, users, left, since.toordinal()))

    # Bitmaps

    def _pass(self, copied: Copied, watch: Callable[[int], None]) -> None:
        for keys, sizes in self._sized(self._raw_keys(), lambda key: key):
            held: dict[str, int] = {}
            for key, size in zip(keys, sizes, strict=True):
                if size and self._event(key) is not None:
                    held[key] = size
                elif not is_operation(key, self._prefix) and size != 0:
                    copied.skipped += 1
            copied.bitmaps += len(held)
            copied.bytes += sum(held.values())
            written: set[str] = set()
            for part in in_sized_parts(self._windows(held), lambda one: one.size, _BYTES):
                written |= self._copy(part, copied)
            copied.written += len(written)
            copied.still_marked += len(written)
            watch(len(keys))
        for keys in in_parts(self._packed_keys(), _PACKED_KEYS):
            self._copy_packed([*dict.fromkeys(keys)], copied)
            watch(len(keys))

    def _windows(self, held: Mapping[str, int]) -> Iterator[_Window]:
        for key, size in held.items():
            target = KEY_PREFIX + key.removeprefix(self._prefix)
            for first in range(0, size, _BYTES):
                yield _Window(key, target, first, min(_BYTES, size - first))

    def _follow(self, keys: Iterable[str]) -> None:
        """Tell the target the events of `keys` and their ids, once their bits were read."""
        events = {str(self._event(key)) for key in keys}
        self._admit(events)
        for kind in {self._kinds.get(event, PLAIN) for event in events} - {PLAIN}:
            self._maps[kind].follow()

    def _copy(self, windows: list[_Window], copied: Copied) -> set[str]:
        """Copy these stretches; returns the keys that lacked bits."""
        windows = self._fitting(windows, copied)
        asked = [one.reading(one.key) for one in windows] + [("PTTL", one.key) for one in windows]
        told = self._source.ask(asked)
        held = dict(zip(windows, told, strict=False))
        lives = dict(zip(windows, told[len(windows) :], strict=True))
        self._follow(one.key for one in windows)
        lacking = self._lacking(held, copied)
        if lacking:
            self._merge(lacking, lives)
            left = self._lacking({one: held[one] for one in lacking}, None)
            copied.unequal += sorted({one.target for one in left})
        return {one.key for one in lacking}

    def _fitting(self, windows: list[_Window], copied: Copied) -> list[_Window]:
        """Those of `windows` whose keys on the target hold nothing else than a bitmap."""
        lengths = self._target.lengths(one.target for one in windows)
        taken = {one.target for one, length in zip(windows, lengths, strict=True) if length is None}
        copied.unequal += sorted(taken.difference(copied.unequal))
        return [one for one in windows if one.target not in taken]

    def _lacking(
        self, held: Mapping[_Window, bytes], copied: Copied | None
    ) -> dict[_Window, bytes]:
        """The windows of `held` that have bits which the target lacks."""
        ours = self._target.ask([one.reading(one.target) for one in held])
        lacking = {}
        for (window, source), target in zip(held.items(), ours, strict=True):
            wanted, found = int.from_bytes(source), int.from_bytes(target.ljust(len(source), b"\0"))
            if missing := wanted & ~found:
                lacking[window] = source
            if copied is not None:
                copied.source_bits += wanted.bit_count()
                copied.target_bits += (found | missing).bit_count()
        return lacking

    def _merge(self, lacking: Mapping[_Window, bytes], lives: Mapping[_Window, int]) -> None:
        client = self._target.client
        left = self._target.ask([("PTTL", one.target) for one in lacking])
        staged = {one: _staged(client, one.target) for one in lacking}
        pipe = Trip(client)
        for one, bits in lacking.items():
            # The expiry comes first: the connection may break after any command.
            pipe.execute_command("SET", staged[one], "", "EX", _AGE)
            pipe.execute_command("SETRANGE", staged[one], one.first, bits)
        self._write(pipe)
        ends = {
            one: longest_life((lives[one], before))
            for one, before in zip(lacking, left, strict=True)
        }
        if isinstance(client, RedisCluster):  # a transaction has the keys of one slot
            for one, name in staged.items():
                self._target.patiently(partial(_merge_one, client, one.target, name, ends[one]))
            return
        pipe = Trip(client)
        for one, name in staged.items():
            # BITOP drops the expiry.
            merging: list[tuple[Any, ...]] = [("BITOP", "OR", one.target, one.target, name)]
            if (life := ends[one]) is not None:
                merging = [("MULTI",), *merging, ("PEXPIRE", one.target, life), ("EXEC",)]
            for command in (*merging, ("UNLINK", name)):
                pipe.execute_command(*command)
        self._write(pipe)

    def _copy_packed(self, keys: list[str], copied: Copied) -> None:
        from ..reading.both import joined

        asked = [(name, packed_key(key)) for key in keys for name in ("GET", "PTTL")]
        told = self._source.ask(asked)
        self._follow(keys)
        ours = self._target.ask([("GET", packed_key(key)) for key in keys])
        for key, value, life, held in zip(keys, told[::2], told[1::2], ours, strict=True):
            if value is None:  # it has been unpacked
                continue
            source, target = joined(key, (None, value)), joined(key, (None, held))
            copied.bitmaps += 1
            copied.bytes += len(value)
            copied.source_bits += len(source)
            copied.target_bits += len(source | target)
            if not source - target:
                continue
            self._allow_packed()
            left = None if life == -1 else max(life, 1)
            self._target.patiently(partial(merge, self._target.client, key, value, left))
            copied.written += 1
            copied.still_marked += 1
            (now,) = self._target.ask([("GET", packed_key(key))])
            if source - joined(key, (None, now)):
                copied.unequal.append(key)

    def _allow_packed(self) -> None:
        (before,) = self._source.ask([("GET", PACKED_BEFORE)])
        if before is not None:
            day = date.fromisoformat(text(before))
            self._target.patiently(lambda: announce(self._target.client, day))


def _staged(client: Any, key: str) -> str:
    """A name for what is to be merged into `key`; in a cluster, in the slot of `key`."""
    name = f"{STAGED}{secrets.token_hex(8)}"
    if "{" not in key and "}" not in key:
        return f"{name}:{{{key}}}"
    if not isinstance(client, RedisCluster):
        return name
    slot = key_slot(key.encode())
    return next(f"{name}:{{{tag}}}" for tag in count() if key_slot(str(tag).encode()) == slot)


def _merge_one(client: Any, key: str, staged: str, life: int | None) -> None:
    with node_of(client, key).pipeline(transaction=True) as pipe:
        pipe.bitop("OR", key, key, staged)
        if life is not None:
            pipe.pexpire(key, life)
        pipe.unlink(staged)
        pipe.execute()

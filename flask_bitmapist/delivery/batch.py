"""What a batch of marks writes, and what it relies on, as far as this process knows the server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import redis

from ..id_map import IdMap, Offsets, Proviso
from ..ids import PLAIN
from ..marks import ONE, Deed, Id, Settled, SettledMark, Who, singles
from ..periods import KEY_PREFIX, Period, marked_periods, unique_key
from ..registry import BELL, KINDS, Registry, Wanted, mismatch
from .bits import Bits, slices
from .choosing import Choices, Choosing
from .density import Density
from .expiry import Expiries
from .merging import Chunk
from .reliance import Reliance
from .relied_offsets import ReliedOffsets
from .single import Single
from .unmarking import Key, Targets, Unmarking, Values

#: Deeds of which the process remembers what their marks rely on.
_MOST_REMEMBERED = 4_096

#: Commands to send: each a bitmap, and bits of it.
Writes = list[tuple[Key, Bits]]


@dataclass
class Batch:
    """What is to be written, and what it relies on."""

    relies_on: Reliance
    offsets: ReliedOffsets
    #: How the only mark is written, and its offset; None: it is not alone, or needs more commands
    #: than usual.
    single: tuple[Single, int] | None = None
    #: Bits to set, where nothing is unmarked.
    sets: dict[Key, list[Chunk]] = field(default_factory=dict)
    #: None: nothing is unmarked, or only in bitmapist's way.
    unmarking: Unmarking | None = None
    writes: Writes = field(default_factory=list)
    #: Bits to unmark under names that nobody has registered: key -> its event, and offsets.
    strays: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    #: Other bits to read: by the name of the key, their offsets.
    looked_up: Mapping[str, Collection[int]] = field(default_factory=dict)
    #: Why marks are refused for good.
    refusals: list[str] = field(default_factory=list)
    #: Who gets which value of which dimension; None: nobody does.
    choices: Choices | None = None
    #: Whether they could not be made, as a dimension has got a value that was not known.
    is_outgrown: bool = False

    @property
    def has_choices_alone(self) -> bool:
        """Whether there is nothing to write but the `choices`."""
        return self.choices is not None and not self.relies_on.kinds

    def sets_in_order(self) -> list[tuple[Key, list[Chunk]]]:
        """The `sets`: those of days before those of weeks and months, as `Unmarking` relies on."""
        return sorted(self.sets.items(), key=_is_longer)

    def reads(self) -> list[tuple[str, Sequence[int]]]:
        """The bits to read in each trip: the name of the key, and as many as one command reads."""
        if self.unmarking is None and not self.strays and not self.looked_up:
            return []
        reads: dict[str, Collection[int]] = dict(self.looked_up)
        if self.unmarking is not None:
            reads |= self.unmarking.reads()
        reads |= {key: bits for key, (_, bits) in self.strays.items()}
        return [(name, part) for name, offsets in reads.items() for part in slices([*offsets])]

    def found_strays(self, values: Values) -> set[str]:
        """Events that nobody has registered but that have marks, as bitmapist's do."""
        return {event for key, (event, _) in self.strays.items() if any(values[key].values())}


class Batches:
    """Makes the batches of one writer."""

    def __init__(
        self,
        registry: Registry,
        id_map: IdMap,
        clock: Callable[[], datetime],
        expiries: Expiries,
        max_id: int,
        density: Density,
        values: int,
    ) -> None:
        """:param values: how many a dimension may have."""
        self._choosing = Choosing(registry, clock, max_id, values)
        self._registry = registry
        self._id_map = id_map
        self._clock = clock
        self._expiries = expiries
        self._max_id = max_id
        self._density = density
        #: The deeds whose marks have been written, one by one.
        self._singles: dict[Deed, Single] = {}
        #: Of a deed: what its marks rely on, and the history in which they may.
        self._known: dict[Deed, tuple[object, Reliance]] = {}

    def batch(self, client: Any, marks: Sequence[Settled], bell: str | None) -> Batch:
        """The batch of `marks`. Errors are those of `Registry.admit` and `IdMap.offsets`.

        :param bell: what `BELL` told when erased people's marks were last left out: no id gets an
            offset unless it still does.
        """
        proviso = Proviso(("HGET", KINDS, BELL), None if bell is None else bell.encode())
        if len(marks) == 1 and (batch := self._of_one(client, *marks[0], proviso)):  # most are
            return batch
        groups = _grouped(marks)
        if all(what.choice is None for what in groups):
            return self._of_events(client, marks, groups, proviso)
        marks, chosen = (
            [mark for mark in marks if (mark[0].choice is None) is of_events]
            for of_events in (True, False)
        )
        batch = self._of_events(client, marks, _grouped(marks), proviso)
        batch.choices = self._choosing.choices(
            client, chosen, self._offsets(client, _grouped(chosen), proviso)
        )
        batch.choices.relies_on.bell = batch.relies_on.bell
        batch.refusals += batch.choices.refusals
        return batch

    def _of_events(
        self,
        client: Any,
        marks: Sequence[Settled],
        groups: Mapping[Deed, list[Any]],
        proviso: Proviso,
    ) -> Batch:
        relies_on = self._reliance(client, (*groups,))
        kinds = relies_on.kinds
        fit = {what: who for what, who in groups.items() if kinds[what.event] == what.kind}
        batch = Batch(relies_on, self._offsets(client, fit, proviso))
        if all(what.value for what in groups):
            for what, who in fit.items():
                self._set(batch, what, who)
        else:
            self._decide(batch, [mark for mark in singles(marks) if _of_day(mark[0]) in fit])
        if len(fit) < len(groups):
            _note_unfit(batch, groups)
        return batch

    def _of_one(self, client: Any, what: Deed, who: Who, proviso: Proviso) -> Batch | None:
        """The batch of a mark that sets one bit; None if it may be another."""
        if not isinstance(who, ONE) or not what.value or what.choice is not None:
            return None
        relies_on = self._reliance(client, (what,))
        if relies_on.kinds[what.event] != what.kind:
            return None
        offsets = ReliedOffsets()
        if isinstance(who, str):
            offsets.add(self._offsets_of(client, what.kind, [who], proviso, assigned=True))
            who = offsets[what.kind][who]
        if who > self._max_id:
            return None
        self._density.check(what, who)
        if (single := self._single(client, what, relies_on)) is not None:
            return Batch(relies_on, offsets, (single, who))
        bits = Bits((who,))
        writes = [(key, bits) for key in self._lasting(_keys(what))]
        return Batch(relies_on, offsets, writes=writes)

    def _single(self, client: Any, what: Deed, relies_on: Reliance) -> Single | None:
        known = self._singles.get(what)
        if known is not None and known.relies_on is relies_on:
            return known
        if self._expiries or not isinstance(client, redis.Redis):
            return None
        if not relies_on.is_entered or not self._registry.has_compared_calendar:
            return None
        if len(self._singles) >= _MOST_REMEMBERED:
            self._singles.clear()
        single = self._singles[what] = Single(_keys(what), relies_on)
        return single

    def _lasting(self, keys: Iterable[Key]) -> Iterable[Key]:
        has_passed = self._expiries.has_passed
        return [key for key in keys if not has_passed(key.period)] if self._expiries else keys

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

    def _offsets(
        self, client: Any, groups: Mapping[Deed, Iterable[Any]], proviso: Proviso
    ) -> ReliedOffsets:
        """The offsets of mapped ids, by kind; unmarking alone gives an id no offset."""
        given: dict[str, dict[bool, dict[str, None]]] = {}
        for what, who in groups.items():
            if what.kind != PLAIN:
                of_kind = given.setdefault(what.kind, {True: {}, False: {}})
                for ids in who:
                    of_kind[what.value].update(dict.fromkeys(ids))
        offsets = ReliedOffsets()
        for kind, of_kind in given.items():
            for assigned, ids in of_kind.items():
                found = offsets.get(kind, {})
                if left := [id_ for id_ in ids if id_ not in found]:
                    found = self._offsets_of(client, kind, left, proviso, assigned=assigned)
                    offsets.add(found)
        return offsets

    def _offsets_of(
        self, client: Any, kind: str, ids: Collection[str], proviso: Proviso, *, assigned: bool
    ) -> Offsets:
        return self._id_map.offsets(
            client,
            kind,
            ids,
            assigned=assigned,
            at_first=lambda kind: self._registry.check_map_begins(client, kind, self._clock),
            proviso=proviso,
        )

    def _set(self, batch: Batch, what: Deed, who: Iterable[Any]) -> None:
        """Add to `batch` the bits of those `who` did `what`."""
        keys = self._lasting(_keys(what))
        for ids in who:
            if what.kind != PLAIN:
                ids = [*map(batch.offsets[what.kind].__getitem__, ids)]
            chunk: Chunk | None = Chunk(ids)
            if chunk is not None and chunk.highest > self._max_id:
                chunk = chunk.up_to(self._max_id)
                refused = len(ids) - (0 if chunk is None else len(chunk))
                batch.refusals += [_too_large(what)] * refused
            if chunk is not None:
                self._density.check(what, chunk.highest, len(chunk))
                for key in keys:
                    batch.sets.setdefault(key, []).append(chunk)

    def _decide(self, batch: Batch, marks: Iterable[SettledMark]) -> None:
        """Add to `batch` what writes the bits of `marks`, each of which may undo earlier ones."""
        bits: Targets = {}
        for what, id_ in marks:
            offset = _offset(batch, what, id_)
            if offset is None:  # it has never been marked
                continue
            if offset > self._max_id:
                batch.refusals.append(_too_large(what))
                continue
            if what.value:
                self._density.check(what, offset)
            keys = _keys(what)
            if keeps_other_days(what):
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
        batch.writes += writes(bits)


def writes(targets: Targets) -> Writes:
    """The commands that make bits what they are to become."""
    return [
        (key, Bits(*zip(*part, strict=True)))
        for key, bits in targets.items()
        for part in slices([*bits.items()])
    ]


def _is_longer(bits: tuple[Key, object]) -> bool:
    period = bits[0].period
    return period is not None and period.grain in ("week", "month")


def keeps_other_days(what: Deed) -> bool:
    """Whether it takes a mark back, but not from a week in which another day has it."""
    return not what.value and what.exact and what.hour is not None


@lru_cache(maxsize=4096)
def _keys(what: Deed) -> tuple[Key, ...]:
    """The bitmaps of a mark; the day's comes first, which `Unmarking` relies on."""
    event, hour = what.event, what.hour
    if hour is not None and what.only is not None:
        period = Period.containing(what.only, hour)
        return (Key(period.key(event), period),)
    undated = (Key(unique_key(event), None),) if what.unique or hour is None else ()
    dated = _endings(hour, what.hourly) if hour is not None else ()
    begin = f"{KEY_PREFIX}{event}"
    return (*(Key(begin + ending, period) for ending, period in dated), *undated)


@lru_cache(maxsize=4096)
def _endings(hour: datetime, hourly: bool) -> tuple[tuple[str, Period], ...]:
    """What follows an event's name in the keys of a mark."""
    periods = marked_periods(hour, hourly)
    return tuple((period.key("").removeprefix(KEY_PREFIX), period) for period in periods)


def _wanted(deeds: Iterable[Deed]) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {}
    for what in deeds:
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
    """Who did each deed, in lists and arrays; the hour is told only if its bitmap is kept."""
    groups: dict[Deed, list[Any]] = {}
    of_days: dict[Deed, list[Any]] = {}
    last: Deed | None = None
    group: list[Any] = [[]]
    for what, who in marks:
        if what is not last:  # most follow one of the same deed
            last = what
            if what not in groups:
                # The first list is for those who come one by one.
                groups[what] = of_days.setdefault(_of_day(what), [[]])
            group = groups[what]
        if isinstance(who, ONE):
            group[0].append(who)
        else:
            group.append(who)
    return {what: [ids for ids in group if len(ids)] for what, group in of_days.items()}


@lru_cache(maxsize=4096)
def _of_day(what: Deed) -> Deed:
    event, value, hour, hourly, unique, kind, exact, only, *_ = what
    if hour is None or hourly or not hour.hour:
        return what
    # Not by `_replace`, which takes three times as long.
    return Deed(event, value, hour.replace(hour=0), hourly, unique, kind, exact, only)


def _note_unfit(batch: Batch, groups: Mapping[Deed, Iterable[Any]]) -> None:
    for what, who in groups.items():
        kind = batch.relies_on.kinds[what.event]
        if kind is None and what.kind == PLAIN:
            for key in _keys(what):
                of_key = batch.strays.setdefault(key.name, (what.event, set()))[1]
                for ids in who:
                    of_key.update(ids if isinstance(ids, list) else ids.tolist())
        # A mapped id has no bit under a name that nobody has registered.
        elif kind is not None and kind != what.kind:
            reason = mismatch(what.event, what.kind, kind)
            batch.refusals += [reason] * sum(map(len, who))


def _too_large(what: Deed) -> str:
    return f"{what.event!r}: the offset of an id is above BITMAPIST_MAX_ID"


def _offset(batch: Batch, what: Deed, id_: Id) -> int | None:
    return id_ if isinstance(id_, int) else batch.offsets.get(what.kind, {}).get(id_)

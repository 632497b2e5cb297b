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
from ..registry import BELL, KINDS, Registry, Wanted, mismatch
from .bits import Bits, Run, runs, slices
from .choosing import AllChoices, Choosing
from .density import Density
from .expiry import Expiries
from .merging import highest, up_to
from .reliance import Reliance
from .relied_offsets import ReliedOffsets
from .same_bits import Chunks, Place, SameBits, in_order, keys
from .single import Single
from .unmarking import Key, Targets, Unmarking, Values

#: Deeds of which the process remembers what their marks rely on.
_MOST_REMEMBERED = 4_096


@dataclass
class Batch:
    """What is to be written, and what it relies on."""

    relies_on: Reliance
    offsets: ReliedOffsets
    #: How the only mark is written, and its offset; None: it is not alone, or needs more commands
    #: than usual.
    single: tuple[Single, int] | None = None
    #: Bits to set, where nothing is unmarked: days before weeks and months.
    sets: list[SameBits] = field(default_factory=list)
    #: None: nothing is unmarked, or only in bitmapist's way.
    unmarking: Unmarking | None = None
    writes: list[Run] = field(default_factory=list)
    #: Bits to unmark under names that nobody has registered: key -> its event, and offsets.
    strays: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    #: Other bits to read: by the name of the key, their offsets.
    looked_up: Mapping[str, Collection[int]] = field(default_factory=dict)
    #: Why marks are refused for good.
    refusals: list[str] = field(default_factory=list)
    #: Who gets which value of which dimension; None: nobody does.
    choices: AllChoices | None = None
    #: Whether they could not be made, as a dimension has got a value that was not known.
    is_outgrown: bool = False

    @property
    def has_choices_alone(self) -> bool:
        """Whether there is nothing to write but the `choices`."""
        return self.choices is not None and not self.relies_on.kinds

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
            batch.sets = in_order(self._chunks(batch, fit), self._expiries.has_passed)
        else:
            self._decide(batch, [mark for mark in singles(marks) if mark[0] in fit])
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
        writes = ((key, bits) for key in self._lasting(keys(what)))
        return Batch(relies_on, offsets, writes=runs(writes))

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
        single = self._singles[what] = Single(keys(what), relies_on)
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
        kinds, new = self._registry.foresee(client, wanted, self._clock)
        days = {
            event: want.first_day
            for event, kind in kinds.items()
            if (want := wanted[event]).first_day is not None and want.kind == kind
        }
        relies_on = Reliance(self._registry, kinds, days, new)
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
        for what in [what for what in groups if what.kind != PLAIN]:
            of_kind = given.setdefault(what.kind, {True: {}, False: {}})
            for ids in groups[what]:
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

    def _chunks(self, batch: Batch, groups: Mapping[Deed, list[Any]]) -> dict[Place, Chunks]:
        """The bits of those who did the deeds `groups`, by the bitmaps in which they are set."""
        places: dict[Place, Chunks] = {}
        most, check = self._max_id, self._density.check
        place, chunks = None, Chunks()
        for what, who in groups.items():
            event, _, hour, hourly, unique, kind, _, only, *_ = what
            if (hour, hourly, unique, only) != place:  # most have the same one
                place = (hour, hourly, unique, only)
                chunks = places.setdefault(place, {})
            for ids in who:
                offsets = ids if kind == PLAIN else [*map(batch.offsets[kind].__getitem__, ids)]
                top = offsets[0] if len(offsets) == 1 else highest(offsets)
                if top > most:
                    offsets = up_to(most, offsets)
                    batch.refusals += [_too_large(what)] * (len(ids) - len(offsets))
                    if not len(offsets):
                        continue
                    top = highest(offsets)
                check(what, top, len(offsets))
                chunks.setdefault(event, []).append(offsets)
        return {place: chunks for place, chunks in places.items() if chunks}

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
            bitmaps = keys(what)
            if keeps_other_days(what):
                for key in bitmaps:
                    if key.period is None or key.period.grain in ("hour", "day"):
                        bits.get(key, {}).pop(offset, None)
                if batch.unmarking is None:
                    batch.unmarking = Unmarking(days_expire=self._expiries.covers("day"))
                batch.unmarking.add(what.event, bitmaps, offset)
                continue
            for key in self._lasting(bitmaps):
                bits.setdefault(key, {})[offset] = what.value
                if batch.unmarking is not None:
                    batch.unmarking.cancel(key, offset)
        batch.writes += writes(bits)


def writes(targets: Targets) -> list[Run]:
    """The commands that make bits what they are to become."""
    return runs(
        (key, Bits(*zip(*part, strict=True)))
        for key, bits in targets.items()
        for part in slices([*bits.items()])
    )


def keeps_other_days(what: Deed) -> bool:
    """Whether it takes a mark back, but not from a week in which another day has it."""
    return not what.value and what.exact and what.hour is not None and what.choice is None


def _wanted(deeds: Iterable[Deed]) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {}
    for what in deeds:
        want = _want(what.kind, what.value, what.hour)
        held = wanted.setdefault(what.event, want)
        if held is not want and what.value:
            days = [day for day in (held.first_day, want.first_day) if day is not None]
            kind = held.kind if held.marked else what.kind
            wanted[what.event] = Wanted(kind, True, min(days, default=None))
    return wanted


@lru_cache(maxsize=4096)
def _want(kind: str, value: bool, hour: datetime | None) -> Wanted:
    return Wanted(kind, value, hour.date() if value and hour is not None else None)


def _grouped(marks: Iterable[Settled]) -> dict[Deed, list[Any]]:
    """Who did each deed, in lists and arrays."""
    groups: dict[Deed, list[Any]] = {}
    last: Deed | None = None
    group: list[Any] = [[]]
    has_many = False
    for what, who in marks:
        if what is not last:  # most follow one of the same deed
            last = what
            # The first list is for those who come one by one.
            group = groups.setdefault(what, [[]])
        if isinstance(who, ONE):
            group[0].append(who)
        else:
            group.append(who)
            has_many = True
    if has_many:
        return {what: [ids for ids in group if len(ids)] for what, group in groups.items()}
    return groups


def _note_unfit(batch: Batch, groups: Mapping[Deed, Iterable[Any]]) -> None:
    for what, who in groups.items():
        kind = batch.relies_on.kinds[what.event]
        if kind is None and what.kind == PLAIN:
            for key in keys(what):
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

"""Dimensions: whoever gets a value has no other one, whichever process gives it.

Where months are kept too, this holds for those of each month as for those of now, and the same trip
writes both.

The bits of all values are read and written in one script, which first checks that the server has no
value that this process does not know. Where the server runs no scripts, and in a cluster, whose
commands nothing holds together, they are read, those that differ are written, and they are read
again until none does. Of each person, the process that writes last then reads what all have
written; so in the end the person has the one value that it gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any, NamedTuple

from ..dimensions import DIMENSIONS, NONE, OTHER, Slots, flag_of, month_key
from ..marks import ONE, Deed, Id, Settled, Who
from ..periods import unique_key
from ..registry import KINDS, Registry, Wanted, mismatch
from ..scripts import Script
from .bits import MOST_TOGETHER
from .reliance import ValueReliance
from .relied_offsets import ReliedOffsets
from .unmarking import Key, Targets, Values

logger = logging.getLogger("flask_bitmapist")

#: Bits that one trip reads: about 20 ms of the server's time.
_BITS_PER_TRIP = 50_000

#: Replies of the script: all is done; other processes have entered a value, or made the first mark
#: of one. There is a third: the server has another history.
DONE, OUTGROWN = 1, 0

# In slices of `MOST_TOGETHER`: Lua's unpack() stops near 8000 values.
_SCRIPT = Script("""
local kinds, dimensions = KEYS[1], KEYS[2]
local next_key, at = 3, 0
local function take()
  at = at + 1
  return ARGV[at]
end
local grown = false
local function changed(key, fields)
  local found = false
  for i = 1, fields do
    local field, expected = take(), take()
    if (redis.call('HGET', key, field) or '') ~= expected then
      grown, found = true, found or expected ~= ''
    end
  end
  return found
end
if (redis.call('HGET', kinds, '') or '') ~= take() then return -1 end
if changed(kinds, take()) then return -1 end
for i = 1, take() do
  next_key = next_key + 1
  if changed(KEYS[next_key - 1], 1) then return -1 end
end
if redis.call('HLEN', dimensions) ~= tonumber(take()) then return 0 end
if changed(dimensions, take()) or grown then return 0 end
for group = 1, take() do
  local flags, people = tonumber(take()), tonumber(take())
  local gets, offsets, chosen = {}, {}, {}
  for i = 1, people do
    offsets[i], chosen[i] = take(), tonumber(take())
    gets[3 * i - 2], gets[3 * i - 1], gets[3 * i] = 'GET', 'u1', offsets[i]
  end
  for flag = 1, flags do
    local key, changed = KEYS[next_key], {}
    next_key = next_key + 1
    local bits = redis.call('BITFIELD', key, unpack(gets))
    for i = 1, people do
      local wanted = chosen[i] == flag and 1 or 0
      if bits[i] ~= wanted then
        local n = #changed
        changed[n + 1], changed[n + 2], changed[n + 3], changed[n + 4] =
          'SET', 'u1', offsets[i], wanted
      end
    end
    if #changed > 0 then redis.call('BITFIELD', key, unpack(changed)) end
  end
end
return 1
""")


class _Group(NamedTuple):
    """Who gets which value of one dimension."""

    #: The bitmaps of its values.
    keys: Sequence[Key]
    #: Offset -> which of the `keys` it is to be in; None: in none.
    chosen: Mapping[int, int | None]

    def of(self, people: Collection[int]) -> _Group:
        """The same, of these people alone."""
        chosen = self.chosen
        return _Group(self.keys, {offset: chosen[offset] for offset in people if offset in chosen})


class AllChoices:
    """Who gets which value of dimensions in a batch, and what this relies on."""

    def __init__(self, relies_on: ValueReliance, offsets: ReliedOffsets) -> None:
        self.relies_on = relies_on
        self.offsets = offsets
        #: Those that are written in one trip: of now, and of each month.
        self.together: list[list[_Group]] = []
        #: Why marks are refused for good.
        self.refusals: list[str] = []

    def parts(self) -> Iterator[Choices]:
        """All of them, as many as are written in one trip."""
        for groups in self.together:
            keys = sum(len(group.keys) for group in groups)
            size = min(MOST_TOGETHER, max(1, _BITS_PER_TRIP // keys))
            people = [*dict.fromkeys(chain.from_iterable(group.chosen for group in groups))]
            for first in range(0, len(people), size):
                some = people[first : first + size]
                of_some = (group.of(some) for group in groups)
                yield Choices(
                    self.relies_on, self.offsets, [group for group in of_some if group.chosen]
                )


class Choices:
    """Those of one trip."""

    def __init__(
        self, relies_on: ValueReliance, offsets: ReliedOffsets, groups: Sequence[_Group]
    ) -> None:
        self.relies_on = relies_on
        self.offsets = offsets
        self.groups = groups

    def script(self, *, is_known: bool) -> tuple[object, ...]:
        """The command that checks and writes all of it on one server.

        :param is_known: whether the server has the script.
        """
        relies_on, maps = self.relies_on, self.offsets.expected()
        keys = [KINDS, DIMENSIONS, *(index for index, _, _ in maps)]
        told: list[object] = [relies_on.bell or ""]
        told += len(relies_on.kinds), *_pairs(relies_on.kinds), len(maps)
        for _, field, state in maps:
            told += field, state
        told += relies_on.of, len(relies_on.slots), *_pairs(relies_on.slots), len(self.groups)
        for group in self.groups:
            keys += [key.name for key in group.keys]
            told += len(group.keys), len(group.chosen)
            for offset, place in group.chosen.items():
                told += offset, 0 if place is None else place + 1
        return (*_SCRIPT.command(is_known=is_known), len(keys), *keys, *told)

    def reads(self) -> dict[str, set[int]]:
        """The bits to read, by the name of the key."""
        return {key.name: {*group.chosen} for group in self.groups for key in group.keys}

    def unsettled(self, values: Values) -> Choices:
        """Those who are not as chosen in all sets, given the bits as they were read.

        The others were once: what changes them now comes later. So of two processes the one whose
        value stays now is the one whose value stays for the month.
        """
        differ = {offset for group in self.groups for _, offset, _ in _differing(group, values)}
        of_them = (group.of(differ) for group in self.groups)
        return Choices(self.relies_on, self.offsets, [group for group in of_them if group.chosen])

    def outstanding(self, values: Values) -> Targets:
        """What is to be written, given the bits as they were read."""
        bits: Targets = {}
        for group in self.groups:
            for key, offset, value in _differing(group, values):
                bits.setdefault(key, {})[offset] = value
        return bits


def _differing(group: _Group, values: Values) -> Iterator[tuple[Key, int, bool]]:
    """The bits that are not as chosen: their key, offset, and what they are to become."""
    for place, key in enumerate(group.keys):
        held = values[key.name]
        for offset, chosen in group.chosen.items():
            if held[offset] != (chosen == place):
                yield key, offset, chosen == place


def _pairs(held: Mapping[str, str | None]) -> Iterator[str]:
    for field, value in held.items():
        yield field
        yield value or ""


class _Chosen:
    """Who gets which value of one dimension; '' is none."""

    def __init__(self) -> None:
        self.now: dict[Id, str] = {}
        #: By the month's first day.
        self.months: dict[date, dict[Id, str]] = {}
        #: The first of those months from which on all are to be kept.
        self.dated: date | None = None

    def add(self, what: Deed, who: Who) -> None:
        """Add what holds of them now."""
        if what.unique or what.hour is None:
            _give(self.now, what, who)
        if what.only is not None and what.hour is not None:
            month = what.hour.date()
            self.dated = min(month, self.dated or month)

    def add_to_month(self, what: Deed, who: Who, month: date) -> None:
        """Add what holds of them in `month`."""
        _give(self.months.setdefault(month, {}), what, who)

    def sets(self) -> list[dict[Id, str]]:
        """Those of now, and those of each month."""
        return [self.now, *self.months.values()]

    def values(self) -> dict[str, None]:
        """The values that somebody gets, in the order in which they came."""
        return dict.fromkeys(chain.from_iterable(given.values() for given in self.sets()))


#: By dimension and kind of ids.
_AllChosen = dict[tuple[str, str], _Chosen]


def _give(held: dict[Id, str], what: Deed, who: Who) -> None:
    choice = what.choice or NONE
    if isinstance(who, ONE):
        held[who] = choice
    else:
        held |= dict.fromkeys(who if isinstance(who, list) else who.tolist(), choice)


def _add_months(chosen: _AllChosen, marks: Iterable[Settled], slots: Slots) -> None:
    """Add what `marks` say of months that are kept."""
    for what, who in marks:
        if what.hour is not None and slots.keeps(what.event, month := what.hour.date()):
            chosen[what.event, what.kind].add_to_month(what, who, month)


class Choosing:
    """Makes the choices of one writer."""

    def __init__(
        self, registry: Registry, clock: Callable[[], datetime], max_id: int, most: int
    ) -> None:
        """:param most: how many values a dimension may have."""
        self._registry = registry
        self._clock = clock
        self._max_id = max_id
        self._most = most
        #: The dimensions of which was told that they are full.
        self._told: set[str] = set()

    def choices(self, client: Any, marks: Sequence[Settled], offsets: ReliedOffsets) -> AllChoices:
        """The choices of `marks`, of which the last one for each person counts.

        Errors are those of `Registry.admit`.
        """
        chosen: _AllChosen = {}
        for what, who in marks:
            of_kind = chosen.get((what.event, what.kind))
            if of_kind is None:
                of_kind = chosen[what.event, what.kind] = _Chosen()
            of_kind.add(what, who)
        slots = self._registry.admit_values(client, _given(chosen), self._most, _dated(chosen))
        if not slots.dated.keys().isdisjoint(dimension for dimension, _ in chosen):
            _add_months(chosen, marks, slots)
            slots = self._registry.admit_values(client, _given(chosen), self._most)
        self._fit(chosen, slots)
        kinds = self._registry.admit(client, _wanted(chosen, slots), self._clock)
        dimensions = {dimension for dimension, _ in chosen}
        relied_on = slots.of(dimensions) | slots.since(dimensions)
        made = AllChoices(ValueReliance(self._registry, kinds, relied_on, len(slots.held)), offsets)
        for (dimension, kind), of_kind in chosen.items():
            values = [*slots.values(dimension), OTHER, NONE]
            held = [one for one in values if kinds.get(flag_of(dimension, one)) == kind]
            self._add(made, dimension, kind, held, of_kind)
        return made

    def _fit(self, chosen: _AllChosen, slots: Slots) -> None:
        """Choose `OTHER` for those whose values have no slot, as there is no room."""
        for (dimension, _), of_kind in chosen.items():
            held = {NONE, OTHER, *slots.values(dimension)}
            for given in of_kind.sets():
                for id_, value in given.items():
                    if value not in held:
                        given[id_] = OTHER
                        self._tell(dimension, value)

    def _tell(self, dimension: str, value: str) -> None:
        if dimension not in self._told:
            self._told.add(dimension)
            logger.warning(
                "%r has %d values, as many as BITMAPIST_DIMENSION_VALUES allows: %r and other new "
                "ones count as %r",
                dimension,
                self._most,
                value,
                OTHER,
            )

    def _add(
        self,
        made: AllChoices,
        dimension: str,
        kind: str,
        held: Sequence[str],
        chosen: _Chosen,
    ) -> None:
        """Add to `made` what those `chosen`, whose ids are of one `kind`, do to the values `held`.

        :param held: those whose people have ids of this kind.
        """
        offsets = self._offsets(made, dimension, kind, {NONE, *held}, chosen)
        groups = []
        for month, given in ((None, chosen.now), *chosen.months.items()):
            # Nobody who has no value now is in any set.
            values = [value for value in held if value != NONE or month is not None]
            keys = [_key(dimension, value, month) for value in values]
            places: dict[str, int | None] = {NONE: None}
            places |= {value: place for place, value in enumerate(values)}
            of_offsets = {
                offsets[id_]: places[value] for id_, value in given.items() if id_ in offsets
            }
            if keys and of_offsets:
                groups.append(_Group(keys, of_offsets))
        if groups:
            made.together.append(groups)

    def _offsets(
        self,
        made: AllChoices,
        dimension: str,
        kind: str,
        values: Collection[str],
        chosen: _Chosen,
    ) -> dict[Id, int]:
        """The offsets of those who are in no set that has ids of another kind, and have any."""
        found: dict[Id, int] = {}
        refused: dict[Id, str] = {}
        mapped = made.offsets.get(kind, {})
        for given in chosen.sets():
            for id_, value in given.items():
                offset = id_ if isinstance(id_, int) else mapped.get(id_)
                if offset is None:  # nobody has ever marked it
                    continue
                found[id_] = offset
                if offset <= self._max_id and value in values:
                    continue
                flag = flag_of(dimension, value)
                refused[id_] = (
                    f"{flag!r}: the offset of an id is above BITMAPIST_MAX_ID"
                    if offset > self._max_id
                    else mismatch(flag, kind, str(made.relies_on.kinds[flag]))
                )
        made.refusals += refused.values()
        for id_ in refused:
            del found[id_]
        return found


def _key(dimension: str, value: str, month: date | None) -> Key:
    """The bitmap of those who have `value` now, or had it last in `month`. It never expires."""
    if month is None:
        return Key(unique_key(flag_of(dimension, value)), None)
    return Key(month_key(dimension, value, month), None)


def _given(chosen: _AllChosen) -> dict[str, list[str]]:
    """The values of each dimension that somebody gets, in the order in which they came."""
    given: dict[str, dict[str, None]] = {}
    for (dimension, _), of_kind in chosen.items():
        given.setdefault(dimension, {}).update(of_kind.values())
    return {dimension: [*filter(None, values)] for dimension, values in given.items()}


def _dated(chosen: _AllChosen) -> dict[str, date]:
    """The dimensions that are dated as far as the marks say, each with their first month."""
    dated: dict[str, date] = {}
    for (dimension, _), of_kind in chosen.items():
        if of_kind.dated is not None:
            dated[dimension] = min(of_kind.dated, dated.get(dimension, date.max))
    return dated


def _wanted(chosen: _AllChosen, slots: Slots) -> dict[str, Wanted]:
    """The flags of all values: those that somebody gets, and those that nobody is to keep."""
    wanted: dict[str, Wanted] = {}
    for (dimension, kind), of_kind in chosen.items():
        given = of_kind.values()
        values = [*slots.values(dimension), OTHER, *([NONE] if of_kind.months else [])]
        for value in values:
            flag = flag_of(dimension, value)
            if value in given or flag not in wanted:
                wanted[flag] = Wanted(kind, value in given, None)
    return wanted

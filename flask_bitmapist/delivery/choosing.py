"""Dimensions: whoever gets a value has no other one, whichever process gives it.

The bits of all values are read and written in one script, which first checks that the server has no
value that this process does not know. Where the server runs no scripts, and in a cluster, whose
commands nothing holds together, they are read, those that differ are written, and they are read
again until none does. Of each person, the process that writes last then reads what all have
written; so in the end the person has the one value that it gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha1
from typing import Any, NamedTuple

from ..dimensions import DIMENSIONS, OTHER, Slots, flag_of
from ..marks import Id, Settled, singles
from ..periods import unique_key
from ..registry import KINDS, Registry, Wanted, mismatch
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
_SCRIPT = """
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
"""
_SHA = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class _Group(NamedTuple):
    """Who gets which value of one dimension."""

    #: The bitmaps of its values.
    keys: Sequence[Key]
    #: Offset -> which of the `keys` it is to be in; None: in none.
    chosen: Mapping[int, int | None]


class Choices:
    """Who gets which value of dimensions, and what this relies on."""

    def __init__(
        self,
        relies_on: ValueReliance,
        offsets: ReliedOffsets,
        groups: Sequence[_Group] = (),
    ) -> None:
        self.relies_on = relies_on
        self.offsets = offsets
        self.groups = [*groups]
        #: Why marks are refused for good.
        self.refusals: list[str] = []

    def parts(self) -> Iterator[Choices]:
        """All of them, as many as are written in one trip."""
        for keys, chosen in self.groups:
            size = min(MOST_TOGETHER, max(1, _BITS_PER_TRIP // len(keys)))
            people = [*chosen.items()]
            for first in range(0, len(people), size):
                part = _Group(keys, dict(people[first : first + size]))
                yield Choices(self.relies_on, self.offsets, [part])

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
        command = ("EVALSHA", _SHA) if is_known else ("EVAL", _SCRIPT)
        return (*command, len(keys), *keys, *told)

    def reads(self) -> dict[str, set[int]]:
        """The bits to read, by the name of the key."""
        return {key.name: {*group.chosen} for group in self.groups for key in group.keys}

    def unsettled(self, values: Values) -> Choices:
        """Those that are not as chosen, given the bits as they were read.

        The others were once: what changes them now comes later.
        """
        groups = []
        for group in self.groups:
            differ = {offset for _, offset, _ in _differing(group, values)}
            left = {offset: place for offset, place in group.chosen.items() if offset in differ}
            groups += [_Group(group.keys, left)] if left else []
        return Choices(self.relies_on, self.offsets, groups)

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


#: Dimension and kind of ids -> who gets which value; '' is none.
_Chosen = dict[tuple[str, str], dict[Id, str]]


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

    def choices(self, client: Any, marks: Iterable[Settled], offsets: ReliedOffsets) -> Choices:
        """The choices of `marks`, of which the last one for each person counts.

        Errors are those of `Registry.admit`.
        """
        chosen: _Chosen = {}
        for what, id_ in singles(marks):
            chosen.setdefault((what.event, what.kind), {})[id_] = what.choice or ""
        slots = self._registry.admit_values(client, _given(chosen), self._most)
        self._fit(chosen, slots)
        kinds = self._registry.admit(client, _wanted(chosen, slots), self._clock)
        relies_on = ValueReliance(
            self._registry, kinds, slots.of({dimension for dimension, _ in chosen}), len(slots.held)
        )
        made = Choices(relies_on, offsets)
        for (dimension, kind), choices in chosen.items():
            flags = [flag_of(dimension, value) for value in (*slots.values(dimension), OTHER)]
            self._add(
                made, dimension, kind, [flag for flag in flags if kinds[flag] == kind], choices
            )
        return made

    def _fit(self, chosen: _Chosen, slots: Slots) -> None:
        """Choose `OTHER` for those whose values have no slot, as there is no room."""
        for (dimension, _), choices in chosen.items():
            held = {"", OTHER, *slots.values(dimension)}
            for id_, value in choices.items():
                if value not in held:
                    choices[id_] = OTHER
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
        made: Choices,
        dimension: str,
        kind: str,
        flags: Sequence[str],
        choices: Mapping[Id, str],
    ) -> None:
        """Add to `made` what `choices` of ids of one `kind` do to `flags`, which have the same."""
        places: dict[str, int | None] = {"": None}
        places |= {flag.removeprefix(flag_of(dimension, "")): n for n, flag in enumerate(flags)}
        chosen: dict[int, int | None] = {}
        for id_, value in choices.items():
            offset = id_ if isinstance(id_, int) else made.offsets.get(kind, {}).get(id_)
            flag = flag_of(dimension, value)
            if offset is None:  # nobody has ever marked it
                continue
            if offset > self._max_id:
                made.refusals.append(f"{flag!r}: the offset of an id is above BITMAPIST_MAX_ID")
            elif value not in places:
                made.refusals.append(mismatch(flag, kind, str(made.relies_on.kinds[flag])))
            else:
                chosen[offset] = places[value]
        if flags and chosen:
            keys = [Key(unique_key(flag), None) for flag in flags]
            made.groups.append(_Group(keys, chosen))


def _given(chosen: _Chosen) -> dict[str, list[str]]:
    """The values of each dimension that somebody gets, in the order in which they came."""
    given: dict[str, dict[str, None]] = {}
    for (dimension, _), choices in chosen.items():
        values = (value for value in choices.values() if value)
        given.setdefault(dimension, {}).update(dict.fromkeys(values))
    return {dimension: [*values] for dimension, values in given.items()}


def _wanted(chosen: _Chosen, slots: Slots) -> dict[str, Wanted]:
    """The flags of all values: those that somebody gets, and those that nobody is to keep."""
    wanted: dict[str, Wanted] = {}
    for (dimension, kind), choices in chosen.items():
        given = {*choices.values()}
        for value in (*slots.values(dimension), OTHER):
            flag = flag_of(dimension, value)
            if value in given or flag not in wanted:
                wanted[flag] = Wanted(kind, value in given, None)
    return wanted

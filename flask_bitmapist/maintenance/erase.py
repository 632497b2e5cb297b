"""Erases people: every bit, and what tells whose the bits were.

1. The server remembers the erasure (`flask_bitmapist.erased`). From here on, no process writes a
   mark that was made before.
2. The entry in the id map goes. No late mark enters the person again: the trip that looks an id up
   asks whether anybody else has been erased. Nobody gets the offset again; if the person comes
   back, they get another one. Visitors who have become the person go likewise.
3. The bits are cleared under every key, packed ones too, until a pass finds no more: those of all
   people who are erased together in one pass.

If a run is cut short, the erasure that the server remembers says which offsets are not done: the
next run goes on with them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from ..delivery.merging import STAGED
from ..dimensions import DIMENSIONS, NONE, Slots, flag_of
from ..erased import ERASED, LAST, SALT, Erasure, digest, erasures_held, server_time
from ..id_map import IdMap
from ..ids import MAPPED, PLAIN, normal_form
from ..marks import Id
from ..packed_periods import keys_of
from ..registry import BELL, KINDS, Registry, slots_of, text
from ..trip import node_of, replies
from .clearing import UNDER_WAY, Clearing
from .persons import Person, Persons
from .receipts import Receipt

#: An erasure is dated so many microseconds after it began. So all that was marked before counts as
#: earlier, even by a process whose idea of the server's clock is a little wrong.
_MARGIN = 50_000
#: The last bit of a Redis string.
_BITS = 2**32


def erase(
    client: Any,
    registry: Registry,
    id_map: IdMap,
    user: object,
    *,
    keep: Collection[str] = (),
    dry_run: bool = False,
    watch: Callable[[int], None] = lambda keys: None,
) -> Receipt:
    """Erase `user`, as `Tracker.erase`.

    :param client: a client that writes, and waits.
    :param watch: called now and then with the number of keys looked at since.
    """
    id_ = normal_form(user)
    if isinstance(id_, str):
        id_ = id_map.user_of(client, MAPPED, id_)
    eraser = Eraser(client, registry, id_map, [Person(id_, frozenset(keep))])
    eraser.check_kept(keep)
    return eraser.told(watch) if dry_run else eraser.erase(watch)


def erasures_of(client: Any, ids: Iterable[Id]) -> list[tuple[str, Erasure | None]]:
    """What the server calls each of the normal forms `ids`, and the last erasure of each.

    It calls nobody anything, and has erased nobody, as long as it has no salt.
    """
    (salt,) = replies(client, [("HGET", ERASED, SALT)])
    if salt is None:
        return [("", None) for _ in ids]
    names = [digest(text(salt), id_) for id_ in ids]
    return [*zip(names, erasures_held(client, names), strict=True)]


class Eraser:
    """Erases some people together."""

    def __init__(
        self, client: Any, registry: Registry, id_map: IdMap, people: Sequence[Person]
    ) -> None:
        self._client = client
        #: Whether a transaction may have keys of any slot.
        self._is_single = isinstance(client, redis.Redis)
        self._registry = registry
        self._id_map = id_map
        #: The kind of ids of each registered event; all others have plain ids.
        self._kinds = registry.certain_kinds(client)
        self._mapped = {MAPPED, *self._kinds.values()} - {PLAIN}
        self._slots = Slots({})
        if any(person.kept for person in people):
            self._slots = slots_of(client.hgetall(DIMENSIONS))
        for person in people:
            self._complete_kept(person)
        self._people = people
        self._whose = Persons(people)
        self.clearing = Clearing(client, registry, self._kinds, self._whose)

    def check_kept(self, names: Iterable[str]) -> None:
        """:raises ValueError: if nobody has marked one of `names`, which are to be kept."""
        if unknown := sorted({*names} - self._kinds.keys() - {*self._slots.dimensions}):
            raise ValueError(f"nobody has ever marked {unknown[0]!r}, which is to be kept")

    def _complete_kept(self, person: Person) -> None:
        """What nobody has marked need not be kept; of dimensions the bitmaps of their values are.

        Late marks name the dimension.
        """
        slots = self._slots
        flags = {flag for one in person.kept for flag in slots.flags(one)}
        flags |= {flag_of(one, NONE) for one in person.kept if one in slots.dated}
        known = {*self._kinds, *self._slots.dimensions}
        person.kept = frozenset((person.kept & known) | (flags & self._kinds.keys()))

    def told(self, watch: Callable[[int], None]) -> Receipt:
        """What would be erased."""
        self._look_up(self._people)
        self._find_visitors([person for person in self._people if person.since is None])
        return self._receipt(None, self.clearing.found(watch))

    def erase(self, watch: Callable[[int], None]) -> Receipt:
        """Erase them.

        :raises NotErasedError: if bits keep coming.
        """
        self.begin()
        for key in keys_of(self._client, STAGED):  # what was staged before relies on the past
            self._client.unlink(key)
        found = self.clearing.clear_all(watch)
        self._end()
        return self._receipt(max(person.moment for person in self._people), found)

    def _receipt(self, moment: int | None, found: Mapping[str, int]) -> Receipt:
        kept = {one for person in self._people for one in person.kept}
        entries = sum(person.gone + len(person.entries) for person in self._people)
        return Receipt.of(moment, found, kept, entries, len(self._people))

    def begin(self) -> None:
        """See to it that no mark of theirs comes any more, and that no map has them."""
        client = self._client
        for kind in self._mapped:
            self._id_map.complete(client, kind)
        client.hsetnx(ERASED, SALT, secrets.token_hex(16))
        self._whose.news(client)  # they may have waited for others
        self._look_up(self._people)
        for person in self._people:
            earlier = person.earlier
            # What was marked before the earlier erasure must still not come back.
            person.late = person.kept if earlier is None else person.kept & {*earlier.kept}
        # Of others everything but the bits has gone already, and somebody else has their ids.
        going = [person for person in self._people if person.since is None]
        self._find_visitors(going)
        self._remember(going)
        self._leave_maps(going)

    def _end(self) -> None:
        """Their bits are gone: have the server remember no more than that they were erased."""
        done = {
            person.name: Erasure(person.moment, person.late, **_wished(person)).dumps()
            for person in self._people
        }
        self._client.hset(ERASED, mapping=done)
        # A person who comes back at once must be marked later than the erasure.
        last = max(person.moment for person in self._people) + _MARGIN
        time.sleep(max(0, last - server_time(self._client)) / 1e6)

    def _look_up(self, people: Sequence[Person]) -> None:
        """Find out whether they have been erased before, and where their bits are."""
        held = erasures_of(self._client, [person.id for person in people])
        for person, (name, earlier) in zip(people, held, strict=True):
            person.name, person.earlier = name, earlier
            for kind, offsets in (earlier.unfinished if earlier else {}).items():
                person.offsets.setdefault(kind, set()).update(offsets)
            if isinstance(person.id, int) and person.id < _BITS:
                person.offsets[PLAIN] = {person.id}
            if person.since is not None and earlier is not None:
                person.moment = earlier.moment
        # Else an entry is that of whoever has the id now.
        self._look_up_entries([person for person in people if person.since is None])
        self._whose.forget()

    def _look_up_entries(self, people: Sequence[Person]) -> None:
        """Find out which offsets the maps have for them."""
        ids = [str(person.id) for person in people]
        found = {kind: self._id_map.find(self._client, kind, ids) for kind in self._mapped}
        for person, id_ in zip(people, ids, strict=True):
            person.entries = {kind: held[id_] for kind, held in found.items() if id_ in held}
            for kind, offset in person.entries.items():
                person.offsets.setdefault(kind, set()).add(offset)

    def _find_visitors(self, people: Sequence[Person]) -> list[Person]:
        """Those of `people` whom visitors have become of whom nothing was known."""
        users = {str(person.id): person for person in people}
        if not users:
            return []
        found: dict[Person, set[str]] = {}
        for visitor, user in self._id_map.users_of(self._client, MAPPED).items():
            if user in users and visitor not in users[user].visitors:
                found.setdefault(users[user], set()).add(visitor)
        if not found:
            return []
        moves = self._id_map.moves(self._client, MAPPED)
        for person, visitors in found.items():
            person.visitors |= visitors
            offsets = person.offsets.setdefault(MAPPED, set())
            offsets.update(move.source for name, move in moves.items() if name in visitors)
        self._whose.forget()
        return [*found]

    def _leave_maps(self, people: Sequence[Person]) -> None:
        """Take `people` out of all maps, in which no late mark enters them again."""
        left = [*people]
        while left:
            if not self._is_single:
                # Of a trip that asked for `BELL` before the erasure the part to the map may be
                # late.
                time.sleep(UNDER_WAY)
            left = self._still_in_maps(left)
            if left and self._whose.news(self._client):
                left = [person for person in left if person.since is None]
            if left:
                self._look_up(left)
                self._remember(left)
        # From here on no visitor becomes one of them.
        self._remember(self._find_visitors(people))
        for person in people:
            for visitor in person.visitors:
                for offset in person.offsets.get(MAPPED, ()):
                    self._id_map.retire(self._client, MAPPED, {visitor: offset})
        # From here on nobody moves the bits of one.
        visitors = [visitor for person in people for visitor in person.visitors]
        self._id_map.forget_visitors(self._client, MAPPED, visitors)

    def _still_in_maps(self, people: Sequence[Person]) -> list[Person]:
        """Take `people` out of the maps; returns those with entries of which nothing was known."""
        stayed: set[str] = set()
        for kind in sorted(self._mapped):
            entries = {str(person.id): person.entries.get(kind) for person in people}
            kept = self._id_map.retire(self._client, kind, entries)
            for person in people:
                if str(person.id) not in kept:
                    person.gone += person.entries.pop(kind, None) is not None
            stayed |= kept
        return [person for person in people if str(person.id) in stayed]

    def _remember(self, people: Sequence[Person]) -> None:
        """Have the server remember that `people` are erased, now."""
        client = self._client
        while people:
            now = server_time(client)
            with suppress(redis.WatchError), node_of(client, ERASED).pipeline() as pipe:
                # Whoever hears of a moment must find all erasures up to it.
                pipe.watch(ERASED)
                last, salt = replies(pipe, [("HMGET", ERASED, LAST, SALT)])[0]
                moment = max(now + _MARGIN, int(last or 0) + 1)
                erased: dict[str, str] = {}
                for person in people:
                    person.moment = moment
                    late = Erasure(moment, person.late, **_wished(person))
                    of_visitors = {digest(text(salt), each) for each in person.visitors}
                    erased |= dict.fromkeys(of_visitors, late.dumps())
                    person.name = digest(text(salt), person.id)
                    erased[person.name] = late._replace(unfinished=person.unfinished).dumps()
                    moment += 1
                last = moment - 1
                pipe.multi()
                pipe.hset(ERASED, mapping={**erased, LAST: last})
                pipe.execute()
                client.hset(KINDS, BELL, last)
                if server_time(client) < people[0].moment:
                    return


def _wished(person: Person) -> dict[str, Any]:
    """What an `Erasure` tells of a person whose row was deleted."""
    if not person.wishes:
        return {}
    wish = person.wishes[-1]
    return {"before": wish.before, "asked": wish.asked}

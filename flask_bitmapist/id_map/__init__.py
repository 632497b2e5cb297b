"""Dense offsets for ids that cannot be offsets themselves, and back.

The ids are stored in the order of their offsets, and an index finds their offsets: `index` has the
form of both, `keys` where they are. Any number of processes agree: new ids are assigned atomically,
a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import redis

from ..trip import Command, replies
from .assigning import assign
from .completing import check_complete, complete, is_begun
from .faults import HistoryChangedError, OvertakenError
from .index import restored
from .keys import GAP, Stretch, map_keys, reading, stretches
from .known import Known, State
from .promoting import Move, forget, is_visitor, moves, promote, user_of, users_of
from .retiring import retire
from .searching import Search

_T = TypeVar("_T")

#: Identifiers that one command looks up: the server answers nobody else meanwhile.
BATCH = 5_000
#: Identifiers that are read in one round trip: some 2 MB of UUIDs, 50 MB of the longest.
_TRIP = 100_000
#: How often ids are looked up anew because the server turned out to have another history.
_ATTEMPTS = 5


class Proviso(NamedTuple):
    """What the server has to say, or else ids get no offsets."""

    command: Command
    reply: bytes | None


class Offsets(dict[str, int]):
    """The offsets of ids of one kind, and the state of the map on which they depend."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.known = known
        #: The state of the map in which they hold; None: there is no map.
        self.state: State | None = None
        #: Whether some are those of visitors, and hold only as long as nobody is promoted.
        self.has_visitors = False
        #: What `PROMOTIONS` was then.
        self.promotions: bytes | None = None


class IdMap:
    """The offsets of mapped ids, as far as this process knows them, and on the server."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        #: How many ids each kind had when last asked: that tells in which buckets to look.
        self._sizes: dict[str, int] = {}

    def offsets(
        self,
        client: Any,
        kind: str,
        ids: Collection[str],
        *,
        assigned: bool = True,
        at_first: Callable[[str], None] = lambda kind: None,
        proviso: Proviso | None = None,
    ) -> Offsets:
        """The offset of each of `ids`; those never seen before get the next free ones.

        Ids that the process knows cost no round trip, others one HMGET a batch, and new ones a
        script besides. They hold only if the server still has their state where they are used
        (`delivery.reliance`).

        :param assigned: False leaves out ids that have no offset yet.
        :param at_first: called with `kind` before the first of all its ids gets an offset. It may
            raise.
        :param proviso: asked in the trips that look ids up.
        :raises OvertakenError: if it does not hold; no id has got an offset since.
        :raises redis.RedisError: if the server does not answer, or the map is damaged.
        """
        for _ in range(_ATTEMPTS):
            known = self._known.get(kind) or self._known.setdefault(kind, Known(kind))
            try:
                return self._offsets(client, known, ids, assigned, at_first, proviso)
            except HistoryChangedError:
                self._known.pop(kind, None)
        raise redis.RedisError(f"the server's {kind} ids keep changing")

    def _offsets(
        self,
        client: Any,
        known: Known,
        ids: Collection[str],
        assigned: bool,
        at_first: Callable[[str], None],
        proviso: Proviso | None,
    ) -> Offsets:
        offsets = Offsets(known)
        unknown: list[str] = []
        for id_ in dict.fromkeys(ids):
            offset = known.offsets.get(id_)
            if offset is None:
                unknown.append(id_)
            else:
                offsets[id_] = offset
        # Only now: another thread may have added some of them, which hold in a later state.
        offsets.state = known.state
        for batch in _batches(unknown):
            since = offsets.state
            found, now, promotions = self._fetch(
                client, known.kind, batch, since, assigned, at_first, proviso
            )
            if not offsets.has_visitors and any(map(is_visitor, batch)):
                offsets.has_visitors, offsets.promotions = True, promotions
            if now is not None:
                lasting = {id_: offset for id_, offset in found.items() if not is_visitor(id_)}
                known.advance(since, now, lasting)
            offsets.update(found)
            offsets.state = now
        return offsets

    def _fetch(
        self,
        client: Any,
        kind: str,
        ids: Sequence[str],
        since: State | None,
        assigned: bool,
        at_first: Callable[[str], None],
        proviso: Proviso | None,
    ) -> tuple[dict[str, int], State | None, bytes | None]:
        keys = map_keys(kind)
        search = self._searched(client, kind, ids, since, proviso)
        if search.state is None and (assigned or is_begun(client, keys)):
            complete(client, keys, lambda: at_first(kind))
            search = self._searched(client, kind, ids, since, proviso)
        found, state = search.found, search.state
        missing = {id_: entry for id_, entry in search.entries.items() if id_ not in found}
        if not (missing and assigned) or state is None:
            return found, state, search.promotions
        offsets, state = assign(client, keys, [*missing.values()], state)
        self._sizes[kind] = state.size
        return found | dict(zip(missing, offsets, strict=True)), state, search.promotions

    def _searched(
        self,
        client: Any,
        kind: str,
        ids: Sequence[str],
        since: State | None = None,
        proviso: Proviso | None = None,
    ) -> Search:
        (search,) = self._search(client, {kind: ids}, since, proviso)
        return search

    def _search(
        self,
        client: Any,
        wanted: Mapping[str, Sequence[str]],
        since: State | None = None,
        proviso: Proviso | None = None,
    ) -> list[Search]:
        """Finished searches for the `wanted` ids, by kind.

        One round trip, and one more if the process does not know in which buckets they are.
        """
        searches = [
            Search(kind, ids, self._sizes.get(kind, 0), since) for kind, ids in wanted.items()
        ]
        while unfinished := [search for search in searches if not search.is_over]:
            asked = [search.command() for search in unfinished]
            if proviso is not None:
                # Last: if it holds now, it held when the states were read.
                asked.append(proviso.command)
            told = replies(client, asked)
            if proviso is not None and told.pop() != proviso.reply:
                raise OvertakenError
            for search, reply in zip(unfinished, told, strict=True):
                search.take(reply)
        sizes = {search.kind: search.state.size for search in searches if search.state}
        self._sizes |= sizes
        return searches

    def lookup(self, client: Any, id_: str, kinds: Collection[str]) -> dict[str, int]:
        """The offset of `id_` in each of `kinds` that has one for it. Reads only.

        :raises IncompleteMapError: if the map has to be completed first.
        """
        searches = self._search(client, {kind: [id_] for kind in kinds})
        for search in searches:
            if search.state is None:
                check_complete(client, map_keys(search.kind))
        return {search.kind: search.found[id_] for search in searches if search.found}

    def find(self, client: Any, kind: str, ids: Collection[str]) -> dict[str, int]:
        """The offset of each of `ids` that has one. Reads only.

        :raises IncompleteMapError: as `lookup`.
        """
        found: dict[str, int] = {}
        for batch in _batches([*dict.fromkeys(ids)]):
            search = self._searched(client, kind, batch)
            if search.state is None:
                check_complete(client, map_keys(kind))
            found |= search.found
        return found

    def ids(self, client: Any, kind: str, offsets: Iterable[int]) -> list[str | None]:
        """The id behind each of `offsets`, in order; None where none was given out. Reads only.

        :raises IncompleteMapError: as `lookup`.
        """
        keys, wanted = map_keys(kind), [int(offset) for offset in offsets]
        found: dict[int, bytes] = {}
        for trip in _trips(stretches(sorted(set(wanted)))):
            told = replies(client, [reading(keys, stretch) for stretch in trip])
            for (first, _), values in zip(trip, told, strict=True):
                found.update(enumerate(values, first))
        held = [*map(found.get, wanted)]
        if None in held:
            check_complete(client, keys)
        return [None if value is None else restored(value) for value in held]

    def complete(self, client: Any, kind: str) -> None:
        """Take over the map of `kind` from an earlier build, and mend its index, if need be.

        :raises redis.RedisError: if the server does not answer, or the map is damaged.
        """
        keys = map_keys(kind)
        if is_begun(client, keys):
            complete(client, keys, lambda: None)

    def retire(self, client: Any, kind: str, entries: Mapping[str, int | None]) -> set[str]:
        """As `retiring.retire`; the offsets are never given out again."""
        return retire(client, map_keys(kind), entries)

    def promote(
        self, client: Any, kind: str, visitor: str, user: str, since: int, began: int
    ) -> str | None:
        """As `promoting.promote`."""
        return promote(client, map_keys(kind), visitor, user, since, began)

    def user_of(self, client: Any, kind: str, id_: str) -> str:
        """The user that `id_` has become, or `id_` itself."""
        return user_of(client, map_keys(kind), id_)

    def users_of(self, client: Any, kind: str) -> dict[str, str]:
        """What each visitor has become."""
        return users_of(client, map_keys(kind))

    def moves(self, client: Any, kind: str) -> dict[str, Move]:
        """The bits of visitors that are still to be moved."""
        return moves(client, map_keys(kind))

    def moved(self, client: Any, kind: str, visitor: str) -> None:
        """The bits of `visitor` are moved."""
        client.hdel(map_keys(kind).moving, visitor)

    def forget_visitors(self, client: Any, kind: str, visitors: Iterable[str]) -> None:
        """Forget that `visitors` have become somebody."""
        forget(client, map_keys(kind), visitors)

    def forget_known(self) -> None:
        """Drop what the process remembers: the server may have come back with other data."""
        self._known = {}


def _batches(items: Sequence[_T]) -> Iterable[Sequence[_T]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


def _trips(stretches: Iterable[Stretch]) -> Iterator[list[Stretch]]:
    """`stretches` in lists of at most `_TRIP` offsets, a command counting as `GAP`."""
    trip: list[Stretch] = []
    size = 0
    for stretch in stretches:
        cost = stretch[1] - stretch[0] + 1 + GAP
        if trip and size + cost > _TRIP:
            yield trip
            trip, size = [], 0
        trip.append(stretch)
        size += cost
    if trip:
        yield trip

"""Erases the people who wait for it, as their rows were deleted (`flask_bitmapist.wishes`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ..erased import Erasure
from ..id_map import IdMap
from ..ids import PLAIN
from ..periods import GRAINS, Grain, Period, unique_key
from ..registry import Registry
from ..trip import replies
from ..wishes import WISHES, Wish, fulfilled, wishes
from .erase import Eraser, erasures_of
from .parts import in_parts
from .persons import Person
from .receipts import Receipt

#: People who are erased together, at most.
_TOGETHER = 500


def erase_due(
    client: Any,
    registry: Registry,
    id_map: IdMap,
    *,
    dry_run: bool = False,
    watch: Callable[[int], None] = lambda keys: None,
) -> Receipt:
    """Erase those who wait for it, as `Tracker.erase_due`.

    :param client: a client that writes, and waits.
    """
    people = _people(client, wishes(client), forgets=not dry_run)
    receipts: list[Receipt] = []
    for part in in_parts(people, _TOGETHER):
        eraser = Eraser(client, registry, id_map, part)
        receipts.append(eraser.told(watch) if dry_run else eraser.erase(watch))
        if not dry_run:
            replies(client, fulfilled(wish for one in part for wish in one.wishes))
    return Receipt.of_all(receipts)


def _people(client: Any, waiting: Iterable[Wish], *, forgets: bool) -> list[Person]:
    """Who is to be erased.

    :param forgets: have the server forget wishes that came twice, and are done.
    """
    by_id: dict[Any, list[Wish]] = {}
    for wish in waiting:
        by_id.setdefault(wish.whose, []).append(wish)
    people = [Person(of[-1].id, frozenset(of[-1].kept), of) for of in by_id.values()]
    erasures = erasures_of(client, [person.id for person in people])
    done = [
        person
        for person, (_, erasure) in zip(people, erasures, strict=True)
        if erasure is not None and _is_done(person, erasure)
    ]
    if forgets:
        replies(client, fulfilled(wish for one in done for wish in one.wishes))
    return [person for person in people if person not in done]


def _is_done(person: Person, last: Erasure) -> bool:
    """Whether the person has been erased for it, or later by somebody's command."""
    wish = person.wishes[-1]
    return not last.unfinished and (last.asked >= wish.asked or last.until >= wish.before)


def make_room(
    client: Any,
    registry: Registry,
    id_map: IdMap,
    waiting: Sequence[Wish],
    since: datetime,
    now: datetime,
) -> None:
    """Somebody new has the id of a person who is to be erased: clear what they have in common.

    That is the entry in the id map, flags, and periods that were not over. Nothing that takes long
    is done; the rest can wait.

    :param waiting: the wishes of that person.
    :param since: since when, a naive moment of the calendar.
    :param now: the present moment there.
    """
    last = waiting[-1]
    eraser = Eraser(client, registry, id_map, [Person(last.id, frozenset(last.kept), [*waiting])])
    eraser.begin()
    kinds = registry.certain_kinds(client)
    names = [name for name, kind in kinds.items() if kind == PLAIN and name not in last.kept]
    if isinstance(last.id, int):
        eraser.clearing.raw(_keys_since(names, since, max(since, now)), clears=True)
    client.hset(
        WISHES, mapping={wish.field: wish._replace(since=since).dumps() for wish in waiting}
    )


def _keys_since(names: Iterable[str], since: datetime, now: datetime) -> Iterator[str]:
    """The bitmaps of `names` that were not complete yet at the moment `since`."""
    grains: list[Grain] = [grain for grain in GRAINS if grain != "year"]
    periods = [
        period
        for grain in grains
        for period in Period.containing(grain, since).until(Period.containing(grain, now))
    ]
    for name in names:
        yield unique_key(name)
        yield from (period.key(name) for period in periods)

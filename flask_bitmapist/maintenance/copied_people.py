"""People in a copy: who has been erased, who is to be, and which visitors have become users."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import partial

from ..erased import ERASED, LAST, SALT, Erasure
from ..id_map.keys import map_keys
from ..id_map.promoting import moves, take_over, users_of
from ..id_map.retiring import renew
from ..ids import MAPPED
from ..registry import BELL, KINDS, text
from ..trip import Trip
from ..wishes import WISHES
from .sides import Side

#: What a server remembers of erasures: all fields, and the erasures by digest.
_Remembered = tuple[dict[str, bytes], dict[str, Erasure]]


def last_erasure(source: Side) -> bytes | None:
    """The moment of the last erasure on `source`."""
    told: bytes | None = source.ask([("HGET", ERASED, LAST)])[0]
    return told


def who_would_come_back(source: Side | None, target: Side) -> int:
    """How many were erased from `target` who may be on the source.

    :param source: None: it remembers no erasures.
    """
    ours, persons = _remembered(target)
    if not persons:
        return 0
    theirs, known = ({}, {}) if source is None else _remembered(source)
    return sum(
        ours.get(SALT) != theirs.get(SALT)
        or name not in known
        or known[name].moment < erasure.moment
        for name, erasure in persons.items()
    )


def take_erasures(source: Side, target: Side, kinds: Iterable[str]) -> bool:
    """Have `target` remember whom `source` has erased; returns whether it is news.

    :param kinds: the kinds of mapped ids that the target may have.
    """
    theirs, known = _remembered(source)
    ours, persons = _remembered(target)
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
    pipe = Trip(target.client)
    for name, value in {SALT: theirs[SALT], **later, LAST: last}.items():
        pipe.execute_command("HSET", ERASED, name, value)
    pipe.execute_command("HSET", KINDS, BELL, last)
    target.write(pipe)
    # A process may have looked up such an id before, and be about to give it an offset.
    for kind in {MAPPED, *kinds}:
        target.patiently(partial(renew, target.client, map_keys(kind)))
    return True


def _remembered(side: Side) -> _Remembered:
    held = side.patiently(lambda: side.client.hgetall(ERASED))
    told = {text(name): value for name, value in held.items()}
    persons = {
        name: Erasure.loads(value) for name, value in told.items() if name not in (SALT, LAST)
    }
    return told, persons


def take_wishes(source: Side, target: Side) -> None:
    """Have `target` know who waits on `source` to be erased."""
    waiting = source.patiently(lambda: source.client.hgetall(WISHES))
    pipe = Trip(target.client)
    for field, value in waiting.items():
        pipe.execute_command("HSETNX", WISHES, field, value)
    target.write(pipe)


def take_promotions(source: Side, target: Side, since: date) -> None:
    """Have `target` know which visitors, who came `since` a day, have become users."""
    keys = map_keys(MAPPED)
    left = source.patiently(lambda: moves(source.client, keys))
    users = source.patiently(lambda: users_of(source.client, keys))
    target.patiently(lambda: take_over(target.client, keys, users, left, since.toordinal()))

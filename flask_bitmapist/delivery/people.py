"""People whose rows are deleted: the server is told that they are to be erased.

A database may give a number again. Whoever then comes as somebody new must not be erased with
whoever went, so what both would have in common is cleared before the new one is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from ..marks import Deed, Settled, SettledMark, singles
from ..trip import Trip
from ..wishes import WISHES, Wish, wishes
from .erasures import Since, ahead

#: Microseconds: what was marked so shortly after a row was deleted counts as earlier, as clocks
#: are compared no more exactly.
_MARGIN = 5_000

#: Takes the bits that people who have gone would have in common with those who have come at the
#: moment, in UTC, and have their ids.
MakeRoom = Callable[[Any, Sequence[Wish], datetime], None]


class People:
    """What becomes of the people of one application, of which its models tell."""

    def __init__(self, make_room: MakeRoom, wished: Callable[[], None]) -> None:
        """:param wished: called when there is somebody to erase; it must not take long."""
        self._make_room = make_room
        self._wished = wished

    def note(self, client: Any, lives: Iterable[Settled], since: Since) -> Since:
        """Note who has gone, and make room for those who have come.

        :param since: of the marks that follow.
        :returns: the same, now that they may be those of people who have come.
        :raises redis.RedisError: if the server does not answer.
        """
        for have_come, run in groupby(singles(lives), key=lambda life: life[0].value):
            if not have_come:
                self._wish(client, run)
            elif new := self._welcome(client, run):
                since = since._replace(new=since.new | new)
        return since

    def _welcome(self, client: Any, came: Iterable[SettledMark]) -> frozenset[int | str]:
        """Returns those who have the ids of people who are to be erased."""
        moments = {id_: _moment(what) for what, id_ in came}
        earlier = [
            wish
            for wish in wishes(client)
            if wish.id in moments and wish.since is None and wish.asked < _micros(moments[wish.id])
        ]
        for id_ in {wish.id for wish in earlier}:
            self._make_room(client, [wish for wish in earlier if wish.id == id_], moments[id_])
        return frozenset(wish.id for wish in earlier)

    def _wish(self, client: Any, went: Iterable[SettledMark]) -> None:
        difference = int(ahead(client) * 1e6)
        pipe = Trip(client)
        for what, id_ in went:
            asked = _micros(_moment(what))
            wish = Wish(id_, asked, asked + difference + _MARGIN, what.kept or ())
            # It may be here already, and even be for an id that somebody new has since.
            pipe.execute_command("HSETNX", WISHES, wish.field, wish.dumps())
        pipe.execute()
        pipe.check()
        self._wished()


def _moment(what: Deed) -> datetime:
    return (what.hour or datetime.min).replace(tzinfo=UTC)


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)

"""What a mark is, and what may name an event."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from .periods import OPERATION, Grain

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Longest event name, in characters.
LONGEST_NAME = 200


class Mark(NamedTuple):
    """A user or a row did something: ``Mark("post:published", 7)``.

    A plain tuple ``("post:published", 7)`` is as good wherever marks are taken.
    """

    event: str
    #: Anything that `flask_bitmapist.ids.normal_form` takes.
    id: object
    #: False takes the mark back.
    value: bool = True
    #: False: no date, only the undated bitmap (bitmapist's ``UniqueEvents``).
    dated: bool = True
    #: When it happened; None is the moment at which it is recorded.
    when: datetime | date | None = None
    #: None: as ``BITMAPIST_TRACK_HOURLY`` says.
    hourly: bool | None = None
    #: None: as ``BITMAPIST_TRACK_UNIQUE`` says.
    unique: bool | None = None
    #: Name of the id map of a textual id; '' is the users' own.
    space: str = ""
    #: Taken back: the week and the month keep the bit while another of their days has it. False
    #: clears them too, as bitmapist does.
    exact: bool = True
    #: `event` is a dimension, and this the value that the person has of it from now on; '' is none.
    #: Then `dated` says that the dimension is: who has which value is kept for each month too.
    choice: object = None
    #: Not None: nothing was done, but the person `id` has gone (`value` is False) and is to be
    #: erased, or somebody new has come (True), who may have the id of one who has gone. These
    #: events and flags stay. Adapters make such marks for ``__bitmapist_erase_deleted__``.
    kept: tuple[str, ...] | None = None


class Deed(NamedTuple):
    """What was done, whoever did it: an event in an hour, ready to be delivered.

    `deed` gives the same one for all who did it, so that what follows from it is found out once.
    """

    event: str
    value: bool
    #: Naive local hour; None: the undated bitmap alone. Where `kept` is told: the moment, in UTC.
    hour: datetime | None
    hourly: bool
    unique: bool
    kind: str  # the registry's name for ids of this kind
    exact: bool = True
    only: Grain | None = None  # the one period whose bitmap it sets; None: all that a mark sets
    #: Of the dimension `event`, the value from now on; '': none. It is that of the month of `hour`
    #: too, if months are kept; `only` a month: they are from now on. The month's alone, unless
    #: `unique` or without an `hour`.
    choice: str | None = None
    kept: tuple[str, ...] | None = None  # who has gone or come: see `Mark`; it sets no bit


#: `Deed`, with the arguments in order; equal ones are one object.
deed = functools.lru_cache(maxsize=4096)(Deed)

#: The offset of a plain id, or the text of a mapped one.
Id = int | str
#: Its types, by which marks are told from those of many: isinstance() takes four times as long with
#: a union, and is asked of each mark several times.
ONE: Final = (int, str)
#: Those who did one thing; the array's are plain.
Who: TypeAlias = "Id | list[int] | list[str] | NDArray[Any]"
#: A mark that can be delivered as it is, now or from the spool: checked, dated, normalised.
SettledMark = tuple[Deed, Id]
#: Such marks of one deed.
Settled = tuple[Deed, Who]


def singles(marks: Iterable[Settled]) -> Iterator[SettledMark]:
    """Each of `marks` by itself."""
    for what, who in marks:
        if isinstance(who, ONE):
            yield what, who
        else:
            for id_ in who if isinstance(who, list) else who.tolist():
                yield what, id_


def count(marks: Iterable[Settled]) -> int:
    """How many marks `marks` are."""
    return sum([1 if isinstance(who, ONE) else len(who) for _, who in marks])


def parts(marks: Iterable[Settled], size: int) -> Iterator[list[Settled]]:
    """`marks` in order, at most `size` of them in each list."""
    part: list[Settled] = []
    room = size
    for what, who in marks:
        length = 1 if isinstance(who, ONE) else len(who)
        first = 0
        while first < length:
            taken = min(room, length - first)
            of_part = who if taken == length else who[first : first + taken]  # type: ignore[index]
            part.append((what, of_part))
            first += taken
            room -= taken
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


@functools.lru_cache(maxsize=4096)
def checked_name(event: str) -> str:
    """`event`, if it can name an event.

    :raises ValueError: saying what is allowed.
    """
    if not is_name(event):
        raise ValueError(
            f"{event!r} cannot name an event: use 1 to {LONGEST_NAME} printable characters "
            f"without leading or trailing space, not beginning with {OPERATION!r}"
        )
    return event


def is_name(event: object) -> bool:
    return (
        isinstance(event, str)
        and 0 < len(event) <= LONGEST_NAME
        and event.isprintable()
        and event == event.strip()
        and not event.startswith(OPERATION)
    )

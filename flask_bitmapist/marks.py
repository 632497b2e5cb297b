"""What a mark is, and what may name an event."""

from __future__ import annotations

import functools
from datetime import date, datetime
from typing import NamedTuple

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


class SettledMark(NamedTuple):
    """A mark that can be delivered as it is, now or from the spool: checked, dated, normalised."""

    event: str
    id: int | str  # the offset of a plain id, or the text of a mapped one
    value: bool
    hour: datetime | None  # naive local hour; None: the undated bitmap alone
    hourly: bool
    unique: bool
    kind: str  # the registry's name for ids of this kind
    exact: bool = True


@functools.lru_cache(maxsize=4096)
def checked_name(event: str) -> str:
    """`event`, if it can name an event.

    :raises ValueError: saying what is allowed.
    """
    if not is_name(event):
        raise ValueError(
            f"{event!r} cannot name an event: use 1 to {LONGEST_NAME} printable characters "
            "without leading or trailing space, not beginning with 'bitop_'"
        )
    return event


def is_name(event: object) -> bool:
    return (
        isinstance(event, str)
        and 0 < len(event) <= LONGEST_NAME
        and event.isprintable()
        and event == event.strip()
        and not event.startswith("bitop_")
    )

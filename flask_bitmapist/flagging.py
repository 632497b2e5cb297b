"""Keeps the people behind a figure as a flag: from then on they are a segment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from .analytics import Flag, count, everyone_behind, kind_behind, others_flagged
from .dimensions import flag_of
from .ids import TextKey
from .marks import checked_name
from .questions import Figure, Question
from .registry import Known
from .tracker import Tracker

#: The most people that are kept at once: they are all read before the first is marked.
MOST_FLAGGED = 1_000_000


@dataclass(frozen=True, slots=True)
class Flagged:
    """What has become of a flag.

    :ivar people: how many were to have it.
    :ivar before: how many had it before.
    :ivar cleared: of how many it was taken.
    :ivar after: how many have it now.
    """

    flag: str
    people: int
    before: int
    cleared: int
    after: int


def check_flag(flag: str, known: Known) -> None:
    """:raises ValueError: saying why people cannot be kept as `flag`."""
    checked_name(flag)
    for dimension in known.dimensions:
        if flag.startswith(flag_of(dimension, "")):
            raise ValueError(
                f"{flag!r} would be a value of the dimension {dimension}: take another name"
            )
    if flag in known.events:
        raise ValueError(f"there is an event called {flag!r}: give the flag another name")


def flag_people(
    question: Question, figure: Figure, flag: str, *, replace: bool, tracker: Tracker
) -> Flagged:
    """Set `flag` for the people behind `figure`; with `replace`, for nobody else.

    All are read first, so that the list may depend on the flag itself. Whoever is erased meanwhile
    is left out.

    :raises ValueError: if the question makes no sense, the flag has ids of another kind, there are
        too many people, or the application marks nothing now.
    :raises redis.RedisError: if the server does not take all of it. To do it again is harmless.
    """
    if not tracker.sends():
        raise ValueError(
            "nothing can be saved now: BITMAPIST_ENABLED is off, or the application is being tested"
        )
    made = time.time()
    kind = kind_behind(question, figure, tracker)
    held = tracker.reader.registered_kind(flag) or kind
    if held != kind:
        raise ValueError(
            f"{flag!r} has {held} ids, and these people have {kind} ones: take another name"
        )
    before = count(Flag(flag), tracker=tracker)
    people = _all_of(everyone_behind(question, figure, tracker))
    others = _all_of(others_flagged(question, figure, flag, tracker)) if replace else []
    space = kind.partition(":")[2]
    for ids, value in ((people, True), (others, False)):
        tracker.write_many(flag, ids, value, False, None, None, None, space, made=made)
    return Flagged(flag, len(people), before, len(others), count(Flag(flag), tracker=tracker))


def _all_of(lists: Iterable[Sequence[int | str]]) -> list[int | TextKey]:
    """Everybody, as what may be marked."""
    each = islice(chain.from_iterable(lists), MOST_FLAGGED + 1)
    people = [id_ if isinstance(id_, int) else TextKey(id_) for id_ in each]
    if len(people) > MOST_FLAGGED:
        raise ValueError(f"more than {MOST_FLAGGED:,} people cannot be saved as a flag")
    return people

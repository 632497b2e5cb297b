"""Annotations: what happened on a day, such as a release, to be drawn on every time axis.

Those that code declares are the application's; those of the command line are on the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime
from typing import Any, NamedTuple

from .boards import check_title
from .questions.fields import Moment
from .trip import node_of

#: A sorted set: ``2026-11-01 v2.0``, by the number of the day. No data about anybody.
ANNOTATIONS = "flask_bitmapist:annotations"
#: The most annotations of a server; of more, the last ones are read.
MOST = 1_000


class Annotation(NamedTuple):
    """What happened on a day; `annotation_of` checks both."""

    date: date
    #: 1 to 80 printable characters.
    text: str

    def __str__(self) -> str:
        return f"{self.date.isoformat()} {self.text}"


def annotation_of(day: object, text: object) -> Annotation:
    """An annotation.

    :param day: a date.
    :param text: 1 to 80 printable characters.
    :raises ValueError: naming what is wrong, and its value.
    """
    if not isinstance(day, date) or isinstance(day, datetime):
        raise ValueError(f"the day of an annotation must be a date without a time, not {day!r}")
    Moment().checked("the day of an annotation", day)
    check_title("the text of an annotation", text)
    return Annotation(day, str(text))


def kept(client: Any) -> list[Annotation]:
    """Those on the server of `client`, in the order of their days; what is none is left out.

    :raises redis.RedisError: if the server does not answer.
    """
    node = node_of(client, ANNOTATIONS)
    # A client that decodes would fail for bytes that are no text.
    held = node.execute_command("ZRANGE", ANNOTATIONS, -MOST, -1, NEVER_DECODE=True)
    return sorted(_read(held))


def keep(client: Any, annotation: Annotation) -> bool:
    """Keep `annotation` on the server; whether it is new.

    :raises ValueError: if there is no more room.
    :raises redis.RedisError: if the server does not answer.
    """
    node = node_of(client, ANNOTATIONS)
    if node.zcard(ANNOTATIONS) >= MOST:
        raise ValueError(f"there are {MOST} annotations already: remove some of them first")
    return bool(node.zadd(ANNOTATIONS, {str(annotation): annotation.date.toordinal()}))


def remove(client: Any, annotation: Annotation) -> bool:
    """Remove `annotation` from the server; whether it was there.

    :raises redis.RedisError: if the server does not answer.
    """
    return bool(node_of(client, ANNOTATIONS).zrem(ANNOTATIONS, str(annotation)))


def _read(held: Iterable[bytes]) -> Iterable[Annotation]:
    for member in held:
        # UnicodeDecodeError is a ValueError.
        with suppress(ValueError):
            day, _, text = member.decode().partition(" ")
            found = annotation_of(date.fromisoformat(day), text)
            # `remove` finds them by how they are spelt.
            if str(found).encode() == member:
                yield found

"""Object id -> bit offset, and back.

`normal_form` gives whatever identifies a person or a row one form, for models, Flask-Login,
`mark_event` and reports alike, so that they meet on one bit: an int is a *plain* id, its own
offset; a str is *mapped* to a dense offset.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from operator import index
from typing import Any, TypeVar, cast
from uuid import UUID

import redis
from werkzeug.local import LocalProxy

from .assigning import assign
from .trip import node_of, replies

_T = TypeVar("_T")

#: The kind of ids that are offsets themselves, and that of the users' mapped ones.
PLAIN, MAPPED = "plain", "mapped"

#: Longest identifier that is mapped, in characters.
LONGEST_TEXT = 512
#: Identifiers kept in the process, over all maps: about 20 MB when full.
CACHE_SIZE = 100_000
#: Identifiers that one command looks up: the server answers nobody else meanwhile.
BATCH = 5_000
#: Identifiers that are read in one round trip: some 4 MB of UUIDs, 50 MB of the longest.
_TRIP = 100_000
#: How what stands for an erased id begins, before its offset: no UTF-8 text does.
_NOBODY = b"\xff"
#: Identifiers that are read with those asked for, rather than starting a command of their own.
_GAP = 32


class UnusableIdError(TypeError, ValueError):
    """Something that identifies nobody, whether by its type or by its value."""

    def __init__(self, message: str, *, without_id: str | None = None) -> None:
        """:param without_id: the same for a log: the id may be an e-mail address."""
        super().__init__(message)
        self.without_id = without_id or message


class TextKey(str):
    """The value of a textual key column: mapped even when it reads like a number."""

    __slots__ = ()


def mapped_kind(space: str) -> str:
    """The kind of ids that are mapped in `space`, apart from the users' ('')."""
    return f"{MAPPED}:{space}" if space else MAPPED


def behind(identifier: object) -> object:
    """The current value of a proxy such as ``LocalProxy(lambda: g.user_id)``; else `identifier`.

    A proxy has every special method, so it looks like a collection and like a callable.
    """
    return identifier._get_current_object() if isinstance(identifier, LocalProxy) else identifier


def normal_form(identifier: object) -> int | str:
    """The int (plain) or str (mapped) that stands for `identifier`.

    A canonical decimal ASCII string is the int it spells, as Flask-Login's ids and form fields
    are, and a whole Decimal is that int; a tuple (a composite key) joins its parts; a UUID,
    ObjectId or IP address becomes its standard text, a date or time its ISO text (in UTC if it has
    a time zone); a member of an Enum is its value, and a proxy what it stands for.

    :raises UnusableIdError: for bool, float, None, bytes and collections, for negative numbers, '',
        'None' and texts over 512 characters.

    >>> normal_form("7"), normal_form("007"), normal_form((7, "de"))
    (7, '007', '7:de')
    >>> normal_form((7, date(2026, 11, 28)))
    '7:2026-11-28'
    """
    if type(identifier) is int and identifier >= 0:  # most are
        return identifier
    identifier = behind(identifier)
    if isinstance(identifier, TextKey):
        return _text(str(identifier))
    if isinstance(identifier, str):
        text = _text(identifier.value if isinstance(identifier, Enum) else identifier)
        canonical = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
        return int(text) if canonical else text
    if isinstance(identifier, tuple):
        return _joined(identifier)
    if isinstance(identifier, UUID) or _is_object_id(identifier):
        return str(identifier)
    if isinstance(identifier, bool):
        raise UnusableIdError(f"{identifier!r} is a bool, not an id")
    try:
        number = index(cast(Any, identifier))
    except TypeError:
        return _rare_form(identifier)
    if number < 0:
        raise UnusableIdError(f"the id {number} is negative; ids are 0 or more")
    return number


def can_identify(kind: type) -> bool:
    """Whether values of `kind`, such as those of a key column, can be ids."""
    unusable = (bool, float, bytes, bytearray, memoryview, timedelta, list, dict, set)
    return not issubclass(kind, unusable)


def _text(text: str) -> str:
    if text in ("", "None"):
        raise UnusableIdError(f"{text!r} identifies nobody: pass the id of a stored row")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, such as JSON may spell
            raise UnusableIdError(
                f"the id {text[:32]!r} is a text that cannot be stored",
                without_id="a text id is a text that cannot be stored",
            ) from None
    if len(text) > LONGEST_TEXT:
        raise UnusableIdError(
            f"the id {text[:32]!r}... has {len(text)} characters; {LONGEST_TEXT} are allowed",
            without_id=f"a text id has {len(text)} characters; {LONGEST_TEXT} are allowed",
        )
    return text


def _joined(parts: tuple[object, ...]) -> int | str:
    if not parts:
        raise UnusableIdError("() identifies nobody: pass the parts of a composite key")
    if len(parts) == 1:
        return normal_form(parts[0])
    # Escaped, so that ('a:b', 'c') and ('a', 'b:c') stay apart.
    texts = (str(normal_form(part)).replace("\\", "\\\\").replace(":", "\\:") for part in parts)
    return _text(":".join(texts))


def _is_object_id(identifier: object) -> bool:
    # By name: MongoDB's driver is not ours to import.
    kind = type(identifier)
    return (kind.__module__, kind.__name__) == ("bson.objectid", "ObjectId")


def _rare_form(identifier: object) -> int | str:
    """The form of types that database keys hold now and then."""
    if isinstance(identifier, date | time):
        return _moment(identifier)
    if isinstance(identifier, Decimal):
        return _decimal(identifier)
    if isinstance(identifier, Enum):
        return normal_form(identifier.value)
    if isinstance(identifier, IPv4Address | IPv6Address):
        return str(identifier)
    told = (
        f"({type(identifier).__name__}) is not an id: "
        "use an int, str, UUID, ObjectId, date or tuple"
    )
    raise UnusableIdError(f"{identifier!r} {told}", without_id=f"an object {told}")


def _moment(moment: date | time) -> str:
    # Databases give one moment back in various zones.
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.isoformat()


def _decimal(number: Decimal) -> int | str:
    # Equal numbers are one id, whatever zeros a column adds: 5 and 5.00, 1.5 and 1.50.
    if not number.is_finite() or number < 0 or abs(number.adjusted()) > LONGEST_TEXT:
        raise UnusableIdError(f"the id {number} is not a number of 0 or more")
    if number == number.to_integral_value():
        return int(number)
    return _text(format(number, "f").rstrip("0"))


class IdMap:
    """Dense offsets for mapped ids: for each kind a hash id -> offset and a list offset -> id.

    Any number of processes agree: new ids are assigned atomically, a batch at a time.
    """

    def __init__(self) -> None:
        # In the order in which they were learnt. Taking the oldest from a dict would get slower and
        # slower: removals leave gaps at its front, which are searched each time.
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    @staticmethod
    def keys(kind: str) -> tuple[str, str]:
        """The hash and the list of a mapped `kind`, in one hash tag for clusters."""
        tag = f"{{ids{kind.removeprefix(MAPPED)}}}"
        return f"flask_bitmapist:{tag}:offsets", f"flask_bitmapist:{tag}:order"

    def offsets(
        self,
        client: Any,
        kind: str,
        ids: Collection[str],
        *,
        assigned: bool = True,
        at_first: Callable[[str], None] = lambda kind: None,
    ) -> dict[str, int]:
        """The offset of each of `ids`; those never seen before get the next free ones.

        Ids that the process knows cost no round trip, others one HMGET a batch, new ones one
        script more. What is known holds only if the server says the same where it is used
        (`delivery.reliance`).

        :param assigned: False leaves out ids that have no offset yet.
        :param at_first: called with `kind` before the first of all its ids gets an offset. It may
            raise.
        :raises redis.RedisError: if the server does not answer; nothing is remembered then.
        """
        offsets: dict[str, int] = {}
        unknown: list[str] = []
        for id_ in dict.fromkeys(ids):
            offset = self._known.get((kind, id_))
            if offset is None:
                unknown.append(id_)
            else:
                offsets[id_] = offset
        for batch in _batches(unknown):
            found = self._fetch(client, kind, batch, assigned, at_first)
            self._remember(kind, found)
            offsets |= found
        return offsets

    def _fetch(
        self,
        client: Any,
        kind: str,
        ids: Sequence[str],
        assigned: bool,
        at_first: Callable[[str], None],
    ) -> dict[str, int]:
        known, order = self.keys(kind)
        asked = [("HMGET", known, *ids), ("EXISTS", known), ("EXISTS", order)]
        held, *exist = replies(client, asked)
        found = dict(zip(ids, held, strict=True))
        missing = [id_ for id_, offset in found.items() if offset is None]
        if missing and assigned:
            if not any(exist):
                at_first(kind)
            found |= dict(zip(missing, assign(client, known, order, missing), strict=True))
        return {id_: int(offset) for id_, offset in found.items() if offset is not None}

    def _remember(self, kind: str, found: dict[str, int]) -> None:
        known = self._known
        for id_, offset in found.items():
            known[kind, id_] = offset
        while len(known) > CACHE_SIZE:
            with suppress(KeyError):  # another thread was faster
                known.popitem(last=False)

    def lookup(self, client: Any, id_: str, kinds: Iterable[str]) -> dict[str, int]:
        """The offset of `id_` in each of `kinds` that has one for it. Reads only."""
        pipe, listed = client.pipeline(transaction=False), list(kinds)
        for kind in listed:
            pipe.hget(self.keys(kind)[0], id_)
        found = zip(listed, pipe.execute(), strict=True)
        return {kind: int(offset) for kind, offset in found if offset is not None}

    def ids(self, client: Any, kind: str, offsets: Iterable[int]) -> list[str | None]:
        """The id behind each of `offsets`, in order; None where none was given out. Reads only."""
        _, list_key = self.keys(kind)
        wanted = [int(offset) for offset in offsets]
        found: dict[int, Any] = {}
        for trip in _trips(_stretches(sorted(set(wanted)))):
            pipe = client.pipeline(transaction=False)
            for first, last in trip:
                # Not LINDEX for each: the server walks the list to find one element.
                pipe.execute_command("LRANGE", list_key, first, last, NEVER_DECODE=True)
            for (first, _), texts in zip(trip, pipe.execute(), strict=True):
                found.update(enumerate(texts, first))
        held = map(found.get, wanted)
        return [
            None if text is None or text.startswith(_NOBODY) else text.decode() for text in held
        ]

    def retire(self, client: Any, kind: str, id_: str, offset: int) -> None:
        """Forget that `id_` has `offset`, which nobody gets from now on.

        :raises redis.RedisError: if the server does not answer, or the map is damaged.
        """
        known, order = self.keys(kind)
        nobody = _NOBODY + str(offset).encode()
        with node_of(client, known).pipeline(transaction=True) as pipe:
            while True:
                pipe.watch(known)
                held = pipe.hget(known, id_)
                if held is None or int(held) != offset:
                    return
                pipe.multi()
                pipe.lset(order, offset, nobody)
                pipe.hdel(known, id_)
                # Both are as long as before: the next offset is told by the length.
                pipe.hset(known, nobody, offset)
                with suppress(redis.WatchError):
                    pipe.execute()
                    return

    def forget_known(self) -> None:
        """Drop what the process remembers: the server may have come back with other data."""
        self._known = OrderedDict()


def _batches(items: Sequence[_T]) -> Iterable[Sequence[_T]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


def _stretches(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of ranges that cover the ascending `offsets`, with small gaps between them."""
    if not offsets:
        return
    first = last = offsets[0]
    for offset in offsets:
        if offset - last > _GAP or offset - first >= BATCH:
            yield first, last
            first = offset
        last = offset
    yield first, last


def _trips(stretches: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """`stretches` in lists of at most `_TRIP` offsets, a command counting as `_GAP`."""
    trip: list[tuple[int, int]] = []
    size = 0
    for first, last in stretches:
        cost = last - first + 1 + _GAP
        if trip and size + cost > _TRIP:
            yield trip
            trip, size = [], 0
        trip.append((first, last))
        size += cost
    if trip:
        yield trip

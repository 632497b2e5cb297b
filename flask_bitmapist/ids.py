"""Object id -> bit offset, and back.

`normal_form` gives whatever identifies a person or a row one form, for models, Flask-Login,
`mark_event` and reports alike, so that they meet on one bit: an int is a *plain* id, its own
offset; a str is *mapped* to a dense offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from operator import index
from typing import Any, TypeGuard, cast
from uuid import UUID

from werkzeug.local import LocalProxy

#: The kind of ids that are offsets themselves, and that of the users' mapped ones.
PLAIN, MAPPED = "plain", "mapped"
#: How the ids of visitors begin: reports show what they are.
VISITOR = "visitor:"

#: Longest identifier that is mapped, in characters.
LONGEST_TEXT = 512


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


def is_many(ids: object) -> TypeGuard[Iterable[object]]:
    """Whether `ids` is a collection of ids; a tuple is one composite id."""
    one = isinstance(ids, int | str | bytes | tuple | Mapping)
    return not one and isinstance(ids, Iterable)


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

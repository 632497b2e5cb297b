"""Segments: sets of users written as expressions over events and flags.

``Event("song:played")`` is the set of the period in which it is evaluated, ``Flag("user:premium")``
an undated set. They combine with ``&``, ``|`` and ``-``. There is no complement: a bitmap's
complement would count its padding.

The text form is the same: ``user:logged_in & (flag:user:premium | web) - flag:user:staff``. As in
Python, ``-`` binds tighter than ``&``, and ``&`` tighter than ``|``. ``-`` is an operator only
between spaces (``sign-up`` is a name); a name with spaces, quotes, parentheses or operators, or one
that begins with ``~`` or ``!``, is written in double quotes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self, TypeVar, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from ..marks import checked_name
from ..periods import Period, unique_key

_FLAG = "flag:"
#: How other languages negate: before a name, it is meant as an operator, not as part of the name.
_NOT = ("~", "!")
#: The most names in a text: each adds one level of nesting when it is evaluated.
MOST_NAMES = 100


class Set(Protocol):
    """Something that combines as sets do."""

    def __and__(self, other: Self, /) -> Self: ...
    def __or__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...


S = TypeVar("S", bound=Set)
_S_co = TypeVar("_S_co", bound=Set, covariant=True)


class ByKey(Protocol[_S_co]):
    """Sets by key."""

    def __getitem__(self, key: str, /) -> _S_co: ...
    def union_of(self, keys: tuple[str, ...], /) -> _S_co: ...


class Expression(ABC):
    """A set of users that depends on a period.

    >>> print(Event("web") & Flag("user:premium") | Event("sign-up"))
    web & flag:user:premium | sign-up
    >>> parse("a & (b - c)") == Event("a") & (Event("b") - Event("c"))
    True
    """

    #: How tightly the text form binds; operands that bind less need parentheses.
    precedence = 4

    @abstractmethod
    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        """The users in `period`.

        :param sets: the sets by key: bitmaps, or what is known about them.
        """

    @abstractmethod
    def keys(self, period: Period) -> Iterator[str]:
        """The keys that `evaluate` reads for `period`."""

    @abstractmethod
    def events(self) -> frozenset[str]:
        """The names of the events in it."""

    @abstractmethod
    def flags(self) -> frozenset[str]:
        """The names of the flags in it."""

    def names(self) -> frozenset[str]:
        """The names of the events and flags in it."""
        return self.events() | self.flags()

    @property
    def spreads(self) -> bool:
        """Whether the union over the periods of a span equals the value for the whole span.

        True for one event, and for one event narrowed by flags: their past can be read from months.
        """
        return True

    def __and__(self, other: Expression) -> Expression:
        return And(self, other)

    def __or__(self, other: Expression) -> Expression:
        return Or(self, other)

    def __sub__(self, other: Expression) -> Expression:
        return Minus(self, other)


@dataclass(frozen=True, slots=True)
class Event(Expression):
    """Those who did the event `name` in the period."""

    name: str

    def __post_init__(self) -> None:
        checked_name(self.name)

    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        return sets.union_of(period.keys(self.name))

    def keys(self, period: Period) -> Iterator[str]:
        yield from period.keys(self.name)

    def events(self) -> frozenset[str]:
        return frozenset({self.name})

    def flags(self) -> frozenset[str]:
        return frozenset()

    def __str__(self) -> str:
        plain = _is_bare(self.name) and not self.name.startswith(_FLAG)
        return self.name if plain else _quoted(self.name)


@dataclass(frozen=True, slots=True)
class Flag(Expression):
    """Those for whom the undated flag `name` (bitmapist's ``UniqueEvents``) is set now."""

    name: str

    def __post_init__(self) -> None:
        checked_name(self.name)

    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        return sets[unique_key(self.name)]

    def keys(self, period: Period) -> Iterator[str]:
        yield unique_key(self.name)

    def events(self) -> frozenset[str]:
        return frozenset()

    def flags(self) -> frozenset[str]:
        return frozenset({self.name})

    def __str__(self) -> str:
        return _FLAG + (self.name if _is_bare(self.name) else _quoted(self.name))


@dataclass(frozen=True, slots=True)
class _Pair(Expression):
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if not isinstance(side, Expression):
                raise TypeError(f"a segment combines with segments, not with {side!r}")

    def keys(self, period: Period) -> Iterator[str]:
        yield from self.left.keys(period)
        yield from self.right.keys(period)

    def events(self) -> frozenset[str]:
        return self.left.events() | self.right.events()

    def flags(self) -> frozenset[str]:
        return self.left.flags() | self.right.flags()

    def _text(self, operator: str) -> str:
        def side(operand: Expression, least: int) -> str:
            return f"({operand})" if operand.precedence < least else str(operand)

        # Python's operators group to the left: an equal one on the right needs parentheses.
        left, right = side(self.left, self.precedence), side(self.right, self.precedence + 1)
        return f"{left} {operator} {right}"


class And(_Pair):
    """Those in both."""

    __slots__ = ()
    precedence = 2

    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        return self.left.evaluate(sets, period) & self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        one_is_undated = not self.left.events() or not self.right.events()
        return one_is_undated and self.left.spreads and self.right.spreads

    def __str__(self) -> str:
        return self._text("&")


class Or(_Pair):
    """Those in either."""

    __slots__ = ()
    precedence = 1

    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        return self.left.evaluate(sets, period) | self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        return self.left.spreads and self.right.spreads

    def __str__(self) -> str:
        return self._text("|")


class Minus(_Pair):
    """Those in the left one who are not in the right one."""

    __slots__ = ()
    precedence = 3

    def evaluate(self, sets: ByKey[S], period: Period) -> S:
        return self.left.evaluate(sets, period) - self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        return not self.right.events() and self.left.spreads

    def __str__(self) -> str:
        return self._text("-")


class SegmentError(ValueError):
    """An invalid segment: says what is wrong and points at the character.

    :ivar reason: what is wrong, without the text.
    :ivar position: the index of that character in the text.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        begin = max(0, position - 60)
        # Keep it on one line that fits a terminal, or the caret would not point at the fault.
        shown = "".join(c if c.isprintable() else " " for c in text[begin : position + 16])
        super().__init__(f"{reason}\n    {shown}\n    {' ' * (position - begin)}^")
        self.reason = reason
        self.position = position


def parse(text: str | Expression) -> Expression:
    """The expression that `text` spells; an expression is itself.

    :raises SegmentError: pointing at the first character that cannot be understood.
    :raises TypeError: for anything but a str or an expression.
    """
    if isinstance(text, Expression):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a segment is a str or an expression of events and flags, not {text!r}")
    return _parsed(text)


_GRAMMAR = r"""
    ?start: union
    ?union: common | union "|" common -> union
    ?common: rest | common "&" rest -> common
    ?rest: atom | rest _MINUS atom -> rest
    ?atom: "(" union ")"
        | EVENT -> event
        | QUOTED_EVENT -> quoted_event
        | FLAG -> flag
        | QUOTED_FLAG -> quoted_flag

    EVENT: /(?!flag:)(?!-(?:[\s()&|"]|$))[^\s()&|"~!][^\s()&|"]*/
    QUOTED_EVENT: /"(?:[^"\\]|\\.)*"/s
    FLAG: /flag:[^\s()&|"~!][^\s()&|"]*/
    QUOTED_FLAG: /flag:"(?:[^"\\]|\\.)*"/s
    _MINUS: /(?<=\s)-(?=\s)/
    %ignore /\s+/
"""


class _Build(Transformer[Token, Expression]):
    """From the parser's tree to expressions; one method for each alias of the grammar."""

    def union(self, sides: list[Expression]) -> Expression:
        return Or(*sides)

    def common(self, sides: list[Expression]) -> Expression:
        return And(*sides)

    def rest(self, sides: list[Expression]) -> Expression:
        return Minus(*sides)

    def event(self, names: list[Token]) -> Expression:
        return _named(Event, names[0], str(names[0]))

    def quoted_event(self, names: list[Token]) -> Expression:
        return _named(Event, names[0], _unquoted(names[0]))

    def flag(self, names: list[Token]) -> Expression:
        return _named(Flag, names[0], names[0][len(_FLAG) :])

    def quoted_flag(self, names: list[Token]) -> Expression:
        return _named(Flag, names[0], _unquoted(names[0][len(_FLAG) :]))


class _UnnameableError(Exception):
    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def _named(kind: type[Event | Flag], token: Token, name: str) -> Expression:
    try:
        return kind(name)
    except ValueError as error:
        raise _UnnameableError(token.start_pos or 0, str(error)) from None


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Build())


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Expression:
    try:
        expression = cast(Expression, _PARSER.parse(text))
    except UnexpectedToken as error:
        if error.token.type == "$END":
            missing = "')'" if "RPAR" in error.expected else "a name"
            raise SegmentError(text, len(text), f"{missing} is missing") from None
        reason = f"{str(error.token)!r} is not expected here"
        raise SegmentError(text, error.pos_in_stream or 0, reason) from None
    except UnexpectedCharacters as error:
        raise _not_understood(text, error.pos_in_stream or 0) from None
    except _UnnameableError as error:
        raise SegmentError(text, error.position, str(error)) from None
    if _size(expression) > MOST_NAMES:
        raise SegmentError(text, len(text), f"a text has at most {MOST_NAMES} names")
    return expression


def _not_understood(text: str, position: int) -> SegmentError:
    """Why no token begins at `position`."""
    if text.startswith(_FLAG, position):
        position += len(_FLAG)
        if not text.startswith((*_NOT, '"'), position):
            return SegmentError(text, position, "the name of a flag is missing")
    if text[position] == '"':
        return SegmentError(text, position, "this quote is not closed")
    if text[position] in _NOT:
        reason = (
            f"there is no complement: write 'a - b' for those in a who are not in b. A name that "
            f"begins with {text[position]!r} stands in double quotes"
        )
        return SegmentError(text, position, reason)
    reason = "'-' stands between two names, with a space on either side"
    return SegmentError(text, position, reason)


def _size(expression: Expression) -> int:
    """The number of names in `expression`; no recursion, as it may be deeply nested."""
    size, pending = 0, [expression]
    while pending:
        match pending.pop():
            case _Pair() as pair:
                pending += (pair.left, pair.right)
            case _:
                size += 1
    return size


def _is_bare(name: str) -> bool:
    return (
        name != "-"
        and not name.startswith(_NOT)
        and not any(c.isspace() or c in '()&|"' for c in name)
    )


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    characters = iter(text[1:-1])
    return "".join(next(characters) if c == "\\" else c for c in characters)

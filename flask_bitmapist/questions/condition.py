"""When to raise an alarm: ``users(user:seen, day) < 0.7 * mean(previous 4 same weekdays)``.

A text is parsed to a tree of the classes below. Segments in it have their own text form. Errors
point at the character, as those of segments do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal

from lark import Lark, UnexpectedCharacters, UnexpectedToken

from ..periods import GRAINS, Grain
from ..reading.segments import Expression, SegmentError, parse

#: The most characters of a condition, which its cost and its depth are bounded by.
LONGEST = 500
#: The most periods that lie between a figure and those it is compared with.
MOST_PREVIOUS = 366

Summarising = Literal["mean", "median", "min", "max"]


class ConditionError(SegmentError):
    """An invalid condition: says what is wrong and points at the character."""


@dataclass(frozen=True, slots=True)
class Users:
    """How many did something in a period: ``users(user:seen, day)``."""

    text: str
    by: Grain
    what: Expression


@dataclass(frozen=True, slots=True)
class Retained:
    """Which share of a cohort did something k periods later: ``retention(a, b, week, 1)``."""

    text: str
    by: Grain
    cohort: Expression
    returned: Expression
    k: int


#: What has a value in each period.
Measure = Users | Retained


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean, median, least or largest of the values in periods before.

    :ivar step: how many periods lie between two of them: 7 for the same weekdays.
    """

    text: str
    by: Summarising
    measure: Measure
    count: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Number:
    """A number, or a percentage."""

    text: str
    value: float


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two values, joined by ``+``, ``-``, ``*`` or ``/``."""

    operator: str
    left: Value
    right: Value


Value = Measure | Summary | Number | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two values that are compared; the texts are theirs."""

    operator: str
    left: Value
    right: Value
    left_text: str
    right_text: str


@dataclass(frozen=True, slots=True)
class Both:
    """Two conditions that are to hold."""

    left: Test
    right: Test


@dataclass(frozen=True, slots=True)
class Either:
    """Two conditions of which one is to hold."""

    left: Test
    right: Test


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that is not to hold."""

    test: Test


Test = Comparison | Both | Either | Not


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, as it was written."""

    text: str
    test: Test

    def __str__(self) -> str:
        return self.text

    def comparisons(self) -> Iterator[Comparison]:
        """Its comparisons, from left to right."""
        pending: list[Test] = [self.test]
        while pending:
            match pending.pop():
                case Comparison() as comparison:
                    yield comparison
                case Not(test):
                    pending.append(test)
                case Both(left, right) | Either(left, right):
                    pending += (right, left)

    def figures(self) -> list[Measure | Summary]:
        """What it needs to know, from left to right, each once."""
        found: dict[Measure | Summary, None] = {}
        for comparison in self.comparisons():
            for side in (comparison.left, comparison.right):
                found |= dict.fromkeys(_figures(side))
        return [*found]


def _figures(value: Value) -> Iterator[Measure | Summary]:
    match value:
        case Arithmetic(_, left, right):
            yield from _figures(left)
            yield from _figures(right)
        case Number():
            return
        case _:
            yield value


def parse_condition(text: str | Condition) -> Condition:
    """The condition that `text` spells; a condition is itself.

    :raises ConditionError: pointing at the first character that cannot be understood.
    :raises TypeError: for anything but a str or a condition.
    """
    if isinstance(text, Condition):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a condition is a str, not {text!r}")
    return _parsed(text.strip())


_GRAMMAR = r"""
    ?start: either
    ?either: both | either "or" both -> either
    ?both: single | both "and" single -> both
    ?single: comparison | "not" single -> negation | "(" either ")"
    comparison: sum COMPARISON sum
    ?sum: product | sum SIGN product -> arithmetic
    ?product: atom | product TIMES atom -> arithmetic
    ?atom: NUMBER -> number | call | "(" sum ")"
    call: NAME "(" argument ("," argument)* ")"
    !argument: _piece+
    !_piece: TEXT | QUOTED | "(" (_piece | ",")* ")"

    COMPARISON: "<=" | ">=" | "==" | "!=" | "<" | ">"
    SIGN: "+" | "-"
    TIMES: "*" | "/"
    NUMBER: /[0-9]+(\.[0-9]+)?%?/
    NAME: /(?!(?:and|or|not)\b)[A-Za-z_]+(?=\s*\()/
    TEXT: /[^\s(),"]+/
    QUOTED: /"(?:[^"\\]|\\.)*"/s
    %ignore /\s+/
"""
_PARSER = Lark(_GRAMMAR, parser="lalr", propagate_positions=True)
#: The periods of a summary: ``previous 7 days``, ``previous 4 same weekdays``.
_PREVIOUS = re.compile(
    rf"previous\s+([0-9]+)\s+(?:(same)\s+weekdays?|(period|{'|'.join(GRAINS)})s?)"
)
_SUMMARIES: tuple[Summarising, ...] = ("mean", "median", "min", "max")
#: How the measures are written.
_USERS = "users(an event or segment, day)"
_RETAINED = "retention(an event or segment, another, week, 1)"


@lru_cache(maxsize=128)
def _parsed(text: str) -> Condition:
    if len(text) > LONGEST:
        raise ConditionError(text, LONGEST, f"a condition has at most {LONGEST} characters")
    try:
        tree = _PARSER.parse(text)
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise ConditionError(text, len(text), _missing(error.expected)) from None
        position = error.pos_in_stream or 0
        reason = _not_understood(text, position, str(error.token))
        raise ConditionError(text, position, reason) from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise ConditionError(
            text, position, _not_understood(text, position, text[position])
        ) from None
    return Condition(text, _Reading(text).test(tree))


def _missing(expected: Collection[str]) -> str:
    if "COMPARISON" in expected:
        return "a comparison is missing, such as '< 100'"
    return "')' is missing" if "RPAR" in expected else "a value is missing, such as users(...) or 7"


def _not_understood(text: str, position: int, token: str) -> str:
    """Why `token`, at `position`, is not expected."""
    if text[position] == '"':
        return "this quote is not closed"
    if text[position] == "=":
        return "write '==' for 'equal to'"
    if token[0].isalpha() and token not in ("and", "or", "not"):
        return f"a value is expected here: a number, {_USERS} or mean(previous 4 weeks)"
    return f"{token!r} is not expected here"


class _Reading:
    """From the parser's tree to a condition."""

    def __init__(self, text: str) -> None:
        self._text = text
        #: The measures outside of summaries: what a summary without one of its own is about.
        self._measures: dict[Measure, None] = {}

    def test(self, tree: Any) -> Test:
        """The condition of `tree`.

        :raises ConditionError: as `parse_condition`.
        """
        for call in tree.find_data("call"):
            if call.children[0] not in _SUMMARIES:
                self._measures[self._measure(call)] = None
        return self._test(tree)

    def _test(self, tree: Any) -> Test:
        match tree.data:
            case "either":
                return Either(*map(self._test, tree.children))
            case "both":
                return Both(*map(self._test, tree.children))
            case "negation":
                return Not(self._test(tree.children[0]))
        left, operator, right = tree.children
        sides = self._value(left), self._value(right)
        return Comparison(str(operator), *sides, self._of(left), self._of(right))

    def _value(self, tree: Any) -> Value:
        match tree.data:
            case "number":
                text = str(tree.children[0])
                share = text.endswith("%")
                return Number(text, float(text.removesuffix("%")) / (100 if share else 1))
            case "arithmetic":
                left, operator, right = tree.children
                return Arithmetic(str(operator), self._value(left), self._value(right))
        if tree.children[0] in _SUMMARIES:
            return self._summary(tree)
        return self._measure(tree)

    def _measure(self, call: Any) -> Measure:
        name, *arguments = call.children
        text = self._of(call)
        match str(name), arguments:
            case "users", [what, by]:
                return Users(text, self._grain(by), self._segment(what))
            case "retention", [cohort, returned, by, k]:
                who = self._segment(cohort), self._segment(returned)
                return Retained(text, self._grain(by), *who, self._number(k, 0))
            case "users" | "retention", _:
                form = _USERS if name == "users" else _RETAINED
                raise self._fault(call, f"write {form}")
        known = ("users", "retention", *_SUMMARIES)
        near = get_close_matches(str(name).lower(), known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise self._fault(call, f"there is no {str(name)!r}: {meant}")

    def _summary(self, call: Any) -> Summary:
        name, *arguments = call.children
        *of, window = arguments
        if len(of) > 1:
            raise self._fault(of[1], f"write {name}(previous 4 weeks)")
        measure = self._own(of[0]) if of else self._only_measure(call)
        told = _PREVIOUS.fullmatch(self._of(window))
        if told is None:
            raise self._fault(window, "write 'previous 7 days' or 'previous 4 same weekdays'")
        count, same, unit = int(told[1]), told[2], told[3]
        by = measure.by
        if (same and by != "day") or (unit and unit not in ("period", by)):
            counted = f"{measure.text} is counted by the {by}"
            raise self._fault(window, f"{counted}: write 'previous {count} {by}s'")
        step = 7 if same else 1
        if not 1 <= count * step <= MOST_PREVIOUS:
            most = MOST_PREVIOUS // step
            raise self._fault(window, f"the number must be 1 to {most}, not {count}")
        return Summary(self._of(call), str(name), measure, count, step)  # type: ignore[arg-type]

    def _only_measure(self, call: Any) -> Measure:
        """What a summary that does not say it is about."""
        if len(self._measures) == 1:
            return next(iter(self._measures))
        example = f"{call.children[0]}(users(user:seen, day), previous 7 days)"
        raise self._fault(call, f"it is not clear of what: write {example}")

    def _own(self, argument: Any) -> Measure:
        """The measure that a summary names."""
        begin = argument.meta.start_pos
        try:
            call: Any = _PARSER.parse(f"{self._of(argument)} < 0").children[0]
        except (UnexpectedToken, UnexpectedCharacters):
            call = None
        if call is None or call.data != "call" or call.children[0] in _SUMMARIES:
            raise self._fault(argument, f"write {_USERS} or {_RETAINED}")
        try:
            return _Reading(self._of(argument))._measure(call)
        except ConditionError as error:
            raise ConditionError(self._text, begin + error.position, error.reason) from None

    def _segment(self, argument: Any) -> Expression:
        try:
            return parse(self._of(argument))
        except SegmentError as error:
            position = argument.meta.start_pos + error.position
            raise ConditionError(self._text, position, error.reason) from None

    def _grain(self, argument: Any) -> Grain:
        told = self._of(argument)
        for grain in GRAINS:
            if told == grain:
                return grain
        raise self._fault(argument, f"the period must be one of {', '.join(GRAINS)}")

    def _number(self, argument: Any, least: int) -> int:
        told = self._of(argument)
        if not re.fullmatch("[0-9]{1,3}", told) or not least <= int(told) <= MOST_PREVIOUS:
            raise self._fault(argument, f"this must be a number from {least} to {MOST_PREVIOUS}")
        return int(told)

    def _of(self, tree: Any) -> str:
        """The text of a part of the tree."""
        return self._text[tree.meta.start_pos : tree.meta.end_pos]

    def _fault(self, tree: Any, reason: str) -> ConditionError:
        return ConditionError(self._text, tree.meta.start_pos, reason)

"""A report broken down: the same one for the people of each value, in the same round trips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import reduce
from itertools import chain
from operator import sub
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..dimensions import flag_of
from ..questions import AsOf, BrokenDown, Question
from ..reading.bitmap import Bitmap, union
from ..reading.bitmaps import NOWHERE, Bitmaps, Extent, Extents, Narrowing, tally
from ..reading.segments import Expression, Flag, Was, not_dated, parse
from ..reading.unknown import no_dimension
from ._report import Report, Scope, Users
from ._sets import Counted, counts, uses_of

#: What a report function takes.
Breakdown = str | Expression | Sequence[str | Expression] | None

if TYPE_CHECKING:
    from ..registry import Known

#: The part of a report that has the people without any of a dimension's values.
NO_VALUE = "(no value)"
#: The whole, beside its parts.
WHOLE = "(all)"


@dataclass(frozen=True, slots=True)
class Divided(Report):
    """A report that has the same for the people of each value, if it was asked for a breakdown.

    :ivar parts: the reports by the values' names; empty without a breakdown. With one, the tables
        have a first column ``value``, which is ``(all)`` in the rows of the whole.
    :ivar as_of: ``then`` if people count under the value that they had then. The first column of
        the tables is called ``value_then``.
    """

    parts: dict[str, Self] = field(default_factory=dict, kw_only=True)
    as_of: AsOf = field(default="now", kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """As that of any report, without what was not asked for: parts, the periods before."""
        told = Report.to_dict(self)
        for each in fields(self):
            if each.kw_only and getattr(self, each.name) == _unasked(each):
                del told[each.name]
        return told

    def exported(self) -> tuple[list[str], list[list[Any]]]:
        header, rows = self.table()
        if not self.parts:
            return header, rows
        # Not a dict: a value may be called like the whole.
        named: list[tuple[str, Report]] = [(WHOLE, self), *self.parts.items()]
        return ["value" if self.as_of == "now" else "value_then", *header], [
            [name, *row] for name, report in named for row in report.table()[1]
        ]


def _unasked(each: Field[Any]) -> Any:
    """What a field holds if its figures were not asked for."""
    return each.default if each.default_factory is MISSING else each.default_factory()


_Divided = TypeVar("_Divided", bound=Divided)


@dataclass(frozen=True, slots=True)
class Values:
    """The values by which a report is broken down.

    :ivar segments: those who have each of them, by its name.
    :ivar rest: whether those who have none are told, too.
    :ivar as_of: of which moment the values are.
    """

    segments: Mapping[str, Expression]
    rest: bool = False
    as_of: AsOf = "now"

    @classmethod
    def of(cls, question: BrokenDown, known: Callable[[], Known]) -> Values:
        """
        :param known: reads what has been marked, which tells the values of a dimension.
        :raises ValueError: for a dimension that there is not, if the question is `strict`; for one
            that is not dated, if its values of then are asked for.
        """
        match question.breakdown:
            case None:
                return cls({})
            case str(text):
                (dimension,) = parse(text).names()
                found = known()
                if question.strict and dimension not in found.dimensions:
                    raise ValueError(no_dimension(dimension, found))
                # Who has no value reads like one who has this one.
                values = (v for v in found.dimensions.get(dimension, ()) if v != NO_VALUE)
                flags = {value: flag_of(dimension, value) for value in values}
                if question.as_of == "now":
                    return cls({value: Flag(flag) for value, flag in flags.items()}, rest=True)
                if flags and dimension not in found.dated:
                    raise ValueError(not_dated(dimension))
                then: dict[str, Expression] = {value: Was(flag) for value, flag in flags.items()}
                # Who has none differs from period to period, as the others do.
                then[NO_VALUE] = reduce(sub, then.values(), question.whom)
                return cls(then, as_of="then")
            case segments:
                return cls({str(segment): segment for segment in segments})

    def told(self, having: Iterable[Users]) -> Values:
        """The same with the segments as `Users.each` returned them."""
        return replace(
            self,
            segments={name: users.what for name, users in zip(self.segments, having, strict=True)},
        )

    @property
    def names(self) -> list[str]:
        """Those of the parts, in order."""
        return [*self.segments, *([NO_VALUE] if self.rest else [])]

    def pairs(self) -> Iterator[tuple[Expression, None]]:
        """As `Users.each` and the like take them, so that they check these too."""
        return ((segment, None) for segment in self.segments.values())


def part_of(question: Question, name: str, known: Callable[[], Known]) -> BrokenDown:
    """The question that the part `name` of the answer to `question` answers.

    :param known: reads what has been marked, if that has to be known.
    :raises ValueError: if there is no such part.
    """
    if not isinstance(question, BrokenDown) or question.breakdown is None:
        raise ValueError(f"there is no part {name!r}: the question has no breakdown")
    values = Values.of(question, known)
    if name not in values.names:
        raise ValueError(f"there is no part {name!r}: there are {', '.join(values.names)}")
    if name in values.segments:
        return question.narrowed(values.segments[name])
    return question.narrowed(reduce(sub, values.segments.values(), question.whom))


def counted(
    asked: Scope,
    values: Values,
    where: Expression | None,
    sets: Callable[[Expression | None], Counted],
    report: Callable[[list[int]], _Divided],
) -> _Divided:
    """A report with its parts, counted in the bitmaps that are fetched once for all of them.

    What a report counts of the people in an undated segment is what its sets have in common with
    that segment, so they are made once. In a dated one people are at times: its sets are made anew.

    :param where: the segment of the whole.
    :param sets: those of the report about the people in a segment.
    :param report: makes the report of their counts.
    """
    whole, first = sets(where), asked.periods[0]
    if not values.names:
        return report(counts(asked.tracker.reader.redis, whole))
    undated = {name: one for name, one in values.segments.items() if not one.dated()}
    dated = {
        name: sets(one if where is None else where & one)
        for name, one in values.segments.items()
        if one.dated()
    }

    def count(bitmaps: Bitmaps) -> list[int]:
        within = [one.evaluate(bitmaps, first) for one in undated.values()]
        having = [union(within)] if values.rest and not _are_apart(within) else []
        everybody, *some = whole.counted(bitmaps, [*within, *having])
        by_name = dict(zip(undated, some, strict=False))
        by_name |= {name: one.counted(bitmaps, [])[0] for name, one in dated.items()}
        if values.rest:
            valued = some[-1:] if having else some
            by_name[NO_VALUE] = [n - sum(them) for n, *them in zip(everybody, *valued, strict=True)]
        return [*everybody, *chain.from_iterable(by_name[name] for name in values.names)]

    fetched = [whole, *dated.values()]
    members = [key for one in undated.values() for key in one.keys(first)]
    keys = [*members, *chain.from_iterable(one.keys for one in fetched)]
    figures = tally(
        asked.tracker.reader.redis, keys, count, _narrowing(fetched, members), uses_of(fetched)
    )
    size = len(figures) // (1 + len(values.names))
    everybody, *parts = (figures[at : at + size] for at in range(0, len(figures), size))
    return replace(
        report(everybody),
        parts=dict(zip(values.names, map(report, parts), strict=True)),
        as_of=values.as_of,
    )


def _are_apart(sets: Sequence[Bitmap]) -> bool:
    """Whether nobody is in two of them: then those in none of them need not be counted."""
    return len(union(sets)) == sum(map(len, sets))


def _narrowing(every: Sequence[Counted], members: Iterable[str]) -> Narrowing | None:
    """What is needed of long bitmaps by all of several reports; None: all.

    :param members: keys of which all is needed.
    """
    narrowings = [sets.narrowing for sets in every if sets.narrowing is not None]
    if len(narrowings) < len(every):
        return None

    def needed(extents: Extents) -> Mapping[str, Extent]:
        needs = {key: extents[key] for key in members}
        for narrowing in narrowings:
            for key, extent in narrowing(extents).items():
                needs[key] = needs.get(key, NOWHERE) | extent
        return needs

    return needed

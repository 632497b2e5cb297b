"""Names that were never marked: a typo is reported with the names closest to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from ..registry import Known
from .segments import Event, Expression, Flag, SegmentError, Was, not_dated, spelt_in_range


class UnknownTermError(SegmentError):
    """A segment with an event or flag that was never marked; points at the name."""

    @classmethod
    def of(cls, text: str, term: Event | Flag, known: Known) -> UnknownTermError:
        """:param text: the text form of a segment that has `term`."""
        hint = did_you_mean(term, known)
        reason = f"nothing called {term} has been recorded" + (f"; {hint}" if hint else "")
        spellings = {str(term), spelt_in_range(term.name)}
        name = "|".join(map(re.escape, spellings))
        found = re.search(rf"(?<![^\s(])(?:{name})(?![^\s),])", text)
        return cls(text, found.start() if found else 0, reason)


class NotDatedError(SegmentError):
    """A segment with a value of then, of which only those of now are kept; points at it."""

    @classmethod
    def of_value(cls, text: str, value: Was) -> NotDatedError:
        """:param text: the text form of a segment that has `value`."""
        return cls(text, max(0, text.find(str(value))), not_dated(value.dimension))


def unknown_terms(expressions: Iterable[Expression], known: Known) -> list[Event | Flag]:
    """The events and flags in `expressions` that were never marked, by their text form.

    A name known only as a flag is not an event. (An event may just have become a flag as well; that
    is not checked on every question.)
    """
    events, flags = set[str](), set[str]()
    for expression in expressions:
        events |= expression.events()
        flags |= expression.flags()
    unknown: list[Event | Flag] = [Event(name) for name in events - known.events.keys()]
    unknown += [Flag(name) for name in flags - known.events.keys() - known.flags.keys()]
    return sorted(unknown, key=str)


def did_you_mean(term: Event | Flag, known: Known) -> str:
    """A question that names the known events and flags most like `term`; '' if none is."""
    terms: list[Event | Flag] = [Event(name) for name in known.events]
    terms += [Flag(name) for name in known.flags]
    by_text = {str(other).casefold(): str(other) for other in terms}
    same_name = [str(other) for other in terms if other.name == term.name]
    close = get_close_matches(str(term).casefold(), by_text, n=3, cutoff=0.7)
    nearest = dict.fromkeys([*same_name, *(by_text[text] for text in close)])
    return f"did you mean {' or '.join(nearest)}?" if nearest else ""


def no_dimension(name: str, known: Known) -> str:
    """That there is no dimension `name`, and which there are, in two sentences."""
    listed = ", ".join(known.dimensions) or "none yet"
    return (
        f"There is no dimension {name!r}. There are: {listed}. To break down by segments, give "
        "several, or a flag."
    )

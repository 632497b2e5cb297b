"""Whatever one report refuses, every other one refuses too, wherever it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from flask_bitmapist.analytics import answer, people_behind
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.questions import BrokenDown, Question
from flask_bitmapist.questions.fields import Segment, Several, Values, declared
from flask_bitmapist.registry import KINDS, KINDS_COPY
from flask_bitmapist.tracker import Tracker

from .every_report import NOW, Asked, every_report

REPORTS = every_report("read")
#: Segments that are wrong, and what is said of each.
MISTAKES = {
    "did(seen, last 3 hours) | read": "needs hours of seen",
    "first(seen, last 48 hours) & read": "needs hours of seen",
    "read - did(read, at least 3 hours of 2024)": "has more than 1000 hours",
    "read & nothing": "unknown events or flags: nothing",
    "read & flag:nothing": "unknown events or flags: nothing",
    "read | texts": "sets of different kinds of ids do not combine",
    "read | lost": "the server has lost which kind of ids the event 'lost' has",
    "read & was(user:plan=pro)": "user:plan only the values of now are kept",
    "read & (": "a name is missing",
}
#: Breakdowns that are wrong, by the dimension's name.
MISSING: list[tuple[dict[str, Any], str]] = [
    ({"breakdown": "user:country"}, "There is no dimension 'user:country'"),
    ({"breakdown": "user:plan", "as_of": "then"}, "user:plan only the values of now are kept"),
]


@pytest.fixture
def recorded(tracker: Tracker) -> None:
    tracker.record([Mark(event, 1, when=NOW) for event in ("seen", "goal")])
    tracker.record([Mark("read", 1, when=NOW, hourly=True)])
    texts = ("texts", "lost")
    tracker.record([Mark(event, UUID(int=1 << 64), when=NOW) for event in texts])
    tracker.record([Mark("user:plan=pro", 1, dated=False)])
    tracker.redis.hset(DIMENSIONS, mapping={"0:user:plan": "pro"})
    for kinds in (KINDS, KINDS_COPY):
        tracker.redis.hdel(kinds, "lost")


def with_mistake(asked: Asked, mistake: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields that may have a segment, each with the mistake in it."""
    for each in declared(asked.kind):
        match each.kind:
            case Values():
                yield each.name, {each.name: [mistake, "seen"]}
            case Several():
                *others, _ = asked.fields[each.name]
                yield each.name, {each.name: [*others, mistake]}
            case Segment():
                yield each.name, {each.name: mistake}


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_refuses_it(stranger: Tracker, report: str) -> None:
    asked, accepted = REPORTS[report], list[str]()

    def people(question: Question) -> None:
        people_behind(question, asked.figure, tracker=stranger)

    def refuses(ask: Callable[[Question], object], told: str, fields: dict[str, Any]) -> bool:
        try:
            ask(asked.question(strict=True, **fields))
        except ValueError as error:
            return told in str(error)
        return False

    for mistake, told in MISTAKES.items():
        for name, fields in with_mistake(asked, mistake):
            if not refuses(lambda one: answer(one, stranger), told, fields):
                accepted.append(f"{name}={mistake}")
            # Those behind a figure of one event are told without looking at the others.
            is_apart = name == "breakdown" or (report, name) == ("trends", "active")
            if not is_apart and not refuses(people, told, fields):
                accepted.append(f"the people of {name}={mistake}")
    for fields, told in MISSING if issubclass(asked.kind, BrokenDown) else []:
        if not refuses(lambda one: answer(one, stranger), told, fields):
            accepted.append(str(fields))
    assert accepted == []

"""Which module answers which question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import questions
from ..current import current_tracker
from ..periods import unique_key
from . import (
    _active_users,
    _adoption,
    _changes,
    _check,
    _churned,
    _compare,
    _conversion,
    _funnel,
    _lifecycle,
    _overlap,
    _people,
    _retention,
    _stickiness,
    _time_to_convert,
    _timeline,
    _trend,
    _trends,
)
from ._breakdown import part_of
from ._report import Report
from ._sets import Crowd, Page, People

if TYPE_CHECKING:
    from ..tracker import Tracker

#: Each has ``answer(question, tracker)`` and, where there are people behind figures, ``behind``.
_MODULES: Mapping[type[questions.Question], Any] = {
    questions.ActiveUsersQuestion: _active_users,
    questions.AdoptionQuestion: _adoption,
    questions.ChangesQuestion: _changes,
    questions.CheckQuestion: _check,
    questions.ChurnedQuestion: _churned,
    questions.CompareQuestion: _compare,
    questions.ConversionQuestion: _conversion,
    questions.FunnelQuestion: _funnel,
    questions.LifecycleQuestion: _lifecycle,
    questions.OverlapQuestion: _overlap,
    questions.PeopleQuestion: _people,
    questions.ProfileQuestion: _timeline,
    questions.RetentionQuestion: _retention,
    questions.StickinessQuestion: _stickiness,
    questions.TimeToConvertQuestion: _time_to_convert,
    questions.TimelineQuestion: _timeline,
    questions.TrendQuestion: _trend,
    questions.TrendsQuestion: _trends,
}


def answer(question: questions.Question, tracker: Tracker | None = None) -> Report:
    """The report that answers `question`.

    :param tracker: whose events; by default the current app's.
    :raises ValueError: for a question that makes no sense.
    :raises redis.RedisError: if the server does not answer.
    """
    report: Report = _MODULES[type(question)].answer(question, tracker)
    return report


def people_behind(
    question: questions.Question,
    figure: questions.Figure,
    first: int = 0,
    limit: int = 50,
    tracker: Tracker | None = None,
) -> People:
    """A page of the people behind one `figure` of the answer to `question`.

    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `answer`.
    """
    page = Page(first, limit)
    return _crowd(question, figure, tracker).page(page)


def everyone_behind(
    question: questions.Question, figure: questions.Figure, tracker: Tracker | None = None
) -> Iterator[list[int | str]]:
    """All people behind one `figure`, in lists, in the order of their offsets.

    The question is checked at once; ids are read as they are asked for.
    """
    return _crowd(question, figure, tracker).everyone()


def kind_behind(
    question: questions.Question, figure: questions.Figure, tracker: Tracker | None = None
) -> str:
    """The kind of the ids of the people behind one `figure`. Errors are those of `answer`."""
    return _crowd(question, figure, tracker).kind


def others_flagged(
    question: questions.Question,
    figure: questions.Figure,
    flag: str,
    tracker: Tracker | None = None,
) -> Iterator[list[int | str]]:
    """All people for whom `flag` is set who are not behind one `figure`, as `everyone_behind`.

    The ids of the flag must be of the same kind as those behind the figure.
    """
    return _crowd(question, figure, tracker).others(unique_key(flag)).everyone()


def _crowd(
    question: questions.Question, figure: questions.Figure, tracker: Tracker | None
) -> Crowd:
    if isinstance(figure, questions.PartFigure) and figure.value is not None:
        reader = (tracker or current_tracker()).reader
        question = part_of(question, figure.value, partial(reader.known, scanned=False))
    crowd: Crowd = _MODULES[type(question)].behind(question, figure, tracker)
    return crowd

"""Boards: questions with titles, to be looked at together; declared in code, or saved."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .questions import REPORTS, Question

#: The most charts of a board: its page asks them all at once.
MOST_CHARTS = 12
#: The reports whose charts can have a target: those that count people, and those with shares of 1.
COUNTING, SHARING = ("trend", "active_users", "trends"), ("retention", "conversion", "adoption")
#: The most characters of a name or a title.
LONGEST_TITLE = 80


@dataclass(frozen=True, slots=True)
class Chart:
    """A question and its title; `chart` makes one.

    :ivar title: 1 to 80 printable characters.
    :ivar report: the report's name, such as ``retention``.
    :ivar target: the value that is to be reached, drawn as a line; None: there is none.
    """

    title: str
    report: str
    question: Question
    target: float | None = None

    def __post_init__(self) -> None:
        check_title("the title of a chart", self.title)
        if REPORTS.get(self.report) is not type(self.question):
            raise ValueError(f"{self.report!r} does not answer a {type(self.question).__name__}")
        if self.target is not None:
            check_target(self.report, self.target)

    @classmethod
    def of_plain(cls, plain: object) -> Chart:
        """The chart whose `plain` it is.

        :raises ValueError: if it is no chart's: the message says why.
        """
        match plain:
            case {"title": title, "report": report, "question": dict(question), **rest}:
                if rest.keys() <= {"target"}:
                    return _made(title, report, question, rest.get("target"))
        raise ValueError("a chart has a title, a report, a question and perhaps a target")

    @property
    def plain(self) -> dict[str, Any]:
        """The chart as JSON has it."""
        told = {"title": self.title, "report": self.report, "question": self.question.plain}
        return told if self.target is None else {**told, "target": self.target}


@dataclass(frozen=True, slots=True)
class Board:
    """Charts in their order, under a name.

    :ivar name: 1 to 80 printable characters.
    :ivar charts: at most 12 of them.
    """

    name: str
    charts: tuple[Chart, ...]

    def __post_init__(self) -> None:
        check_title("the name of a board", self.name)
        if len(self.charts) > MOST_CHARTS:
            raise ValueError(
                f"the board {self.name!r} has {len(self.charts)} charts, and {MOST_CHARTS} are the "
                "most: make two boards of it"
            )

    @classmethod
    def of_plain(cls, plain: object) -> Board:
        """The board whose `plain` it is.

        :raises ValueError: if it is no board's: the message says why.
        """
        match plain:
            case {"name": name, "charts": list(charts), **rest} if not rest:
                return cls(name, tuple(map(Chart.of_plain, charts)))
        raise ValueError("a board has a name and charts, and nothing else")

    @property
    def plain(self) -> dict[str, Any]:
        """The board as JSON has it."""
        return {"name": self.name, "charts": [chart.plain for chart in self.charts]}


def chart(title: str, report: str, /, *, target: float | None = None, **question: Any) -> Chart:
    """A chart of a board: what a report is asked, and a title.

    :param title: 1 to 80 printable characters.
    :param report: the name of a function of `flask_bitmapist.analytics`: ``trend``,
        ``active_users``, ``retention``, ``funnel``, ``time_to_convert``, ``conversion``,
        ``lifecycle``, ``stickiness``, ``churned``, ``adoption``, ``overlap``, ``changes`` or
        ``compare``.
    :param target: a value that is to be reached, which is drawn as a line: a number of people for
        ``trend``, ``trends`` and ``active_users``, a share of 1 for ``retention``,
        ``conversion`` and ``adoption``. The other reports have no axis for one.
    :param question: the arguments of that function. Without an end, the chart ends now.
    :raises ValueError: if there is no such report, or if the question cannot be asked.
    """
    return _made(title, report, question, target)


def board_of(name: str, charts: Iterable[Chart]) -> Board:
    """The board `name`, as code declares it.

    :raises ValueError: if something in it is no chart, or if there is none.
    """
    listed = tuple(charts)
    for one in listed:
        if not isinstance(one, Chart):
            raise ValueError(
                f"the board {name!r} has {one!r} among its charts: make them with "
                'flask_bitmapist.chart("Sign-ups", "trend", event="user:created")'
            )
    if not listed:
        raise ValueError(f"the board {name!r} has no charts")
    return Board(name, listed)


def check_title(what: str, title: object) -> None:
    """:raises ValueError: if `title` is not 1 to 80 printable characters."""
    fits = isinstance(title, str) and 0 < len(title) <= LONGEST_TITLE
    if not fits or not str(title).isprintable() or str(title).strip() != title:
        raise ValueError(
            f"{what} must be 1 to {LONGEST_TITLE} printable characters, without a space at either "
            f"end, not {title!r}"
        )


def check_target(report: str, target: object) -> None:
    """:raises ValueError: if the charts of `report` cannot have the `target`."""
    if report not in (*COUNTING, *SHARING):
        raise ValueError(f"{report} cannot have a target: {', '.join((*COUNTING, *SHARING))} can")
    is_number = isinstance(target, int | float) and not isinstance(target, bool)
    most, allowed = (1.0, "a share from 0 to 1") if report in SHARING else (1e10, "a number from 0")
    if not is_number or not 0 <= target <= most:  # type: ignore[operator]
        raise ValueError(f"the target of {report} must be {allowed}, not {target!r}")


def _made(title: Any, report: Any, question: Mapping[str, Any], target: Any = None) -> Chart:
    kind = REPORTS.get(report) if isinstance(report, str) else None
    if kind is None:
        _refuse_report(title, report)
    try:
        return Chart(title, report, kind.of_plain(question), target)
    except ValueError as error:
        raise ValueError(f"the chart {title!r}: {error}") from error


def _refuse_report(title: object, report: object) -> NoReturn:
    near = difflib.get_close_matches(str(report), REPORTS, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(REPORTS)}"
    raise ValueError(f"the chart {title!r}: there is no report {report!r}: {meant}")

"""A board as a mail: HTML that mail programs show, text, and JSON.

Mail programs drop what they do not trust: Gmail and Outlook show neither SVG nor pictures in
``data:`` addresses, and pictures from elsewhere only when somebody allows it. So charts are drawn
with the coloured cells of tables, which all of them show, and each has its figures as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import SMTP
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from flask import Flask, current_app
from werkzeug.datastructures import MultiDict

from .boards import Board
from .current import current_tracker
from .dashboard.boards import Boards, Card, cards
from .dashboard.drawing import full_label
from .dashboard.page import Visit
from .dashboard.query import Query
from .dashboard.rendering import template
from .dashboard.small import Bars, Line, Shares, points_of

#: Pixels from the bottom to the top of a chart.
HEIGHT = 72
#: The most columns of a chart, and rows of its figures: those of the latest periods.
MOST_COLUMNS, MOST_ROWS = 31, 7
#: The height of a target's line, in per cent: two pixels.
_THIN = 200 / HEIGHT
#: The colours of the pieces, by their class in the stylesheet.
COLOURS = {
    "new": "#006c9d",
    "returning": "#5899c1",
    "resurrected": "#1d7a4f",
    "dormant": "#ad4e1c",
}
_LINE, _RUNNING, _TARGET = "#006c9d", "#a9cde0", "#ad4e1c"


class Block(NamedTuple):
    """Pixels of a column that have one colour; '' is none."""

    height: int
    colour: str


class Row(NamedTuple):
    """A figure in words: what it is about, and its value; `rate` draws a bar of that share."""

    name: str
    value: str
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart of a mail.

    :ivar title: the chart's.
    :ivar url: the address of its page; empty if it is not known.
    :ivar figure: the one figure that somebody would ask for; empty if there is none.
    :ivar told: what it counts; or why there is no answer.
    :ivar columns: from left to right, each from its highest piece down.
    :ivar names: those of the first and of the last column.
    :ivar legend: the colours, with their names.
    :ivar rows: the figures, the latest first.
    :ivar more: how many figures are left out.
    :ivar parts: those that it is the whole of, each with its last value.
    :ivar notes: the annotations on its time axis, by their days.
    """

    title: str
    url: str
    figure: str
    told: str
    columns: Sequence[Sequence[Block]] = ()
    names: tuple[str, str] = ("", "")
    legend: Sequence[tuple[str, str]] = ()
    rows: Sequence[Row] = ()
    more: int = 0
    parts: Sequence[str] = ()
    notes: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Digest:
    """A board, as of one moment, to be sent.

    :ivar subject: one line.
    :ivar html: a whole document that needs nothing else.
    :ivar text: the same in words.
    """

    subject: str
    html: str
    text: str
    _told: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The board with the answers of all its charts, as plain dicts, lists and numbers."""
        return {"subject": self.subject, **self._told}

    def message(self, to: str = "", sender: str = "") -> EmailMessage:
        """A message with the text and the HTML, for `smtplib` or ``sendmail -t``.

        :param to: the recipients' addresses, with commas between them.
        :param sender: the address that it comes from.
        """
        message = EmailMessage(policy=SMTP)
        message["Subject"] = self.subject
        if to:
            message["To"] = to
        if sender:
            message["From"] = sender
        message.set_content(self.text)
        message.add_alternative(self.html, subtype="html")
        return message


def digest(name: str, *, url: str | None = None) -> Digest:
    """The board `name` of the current app, as of now.

    :param name: that of a board that code has declared, or that somebody has saved.
    :param url: the address of the application, such as ``https://shop.example``: the charts lead to
        their pages. None: they do if the application has a ``SERVER_NAME``.
    :raises ValueError: if there is no such board, with the names of those that there are; if `url`
        is no address.
    :raises redis.RedisError: if the server does not answer.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    tracker = current_tracker()
    now = tracker.now()
    board = _board(name)
    with _addresses(app, url) as absolute:
        visit = Visit(now, Query(MultiDict(), tracker.reader.known(), now.date()))
        answered = [*cards(visit, board)]
        drawn = [_drawn(card, absolute(card.url)) for card in answered]
        home = absolute(_home(app))
    as_of = f"{full_label(now, 'hour')} ({tracker.settings.timezone})"
    html = template("digest").render(
        board=board, charts=drawn, height=HEIGHT, as_of=as_of, home=home
    )
    told = {
        "name": board.name,
        "as_of": now.isoformat(),
        "charts": [card.to_dict() for card in answered],
    }
    subject = f"{board.name}: {full_label(now.date(), 'day')}"
    return Digest(
        subject, html, _text(board, drawn, as_of, home), tracker.server.with_replica(told)
    )


def _board(name: str) -> Board:
    boards = Boards.of_application()
    named = {board.name: board for board in boards.saved.boards.values()} | {**boards.declared}
    if name not in named:
        there = f"there are {', '.join(map(repr, named))}" if named else "there is none"
        raise ValueError(f"there is no board {name!r}: {there}")
    return named[name]


@contextmanager
def _addresses(app: Flask, url: str | None) -> Iterator[Callable[[str], str]]:
    """Pages have addresses in here; gives what makes a whole address of a path, or ''."""
    parts = urlsplit(url or "")
    if url is not None and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise ValueError(f"the address must begin with https:// and a host, not {url!r}")
    scheme, name = app.config["PREFERRED_URL_SCHEME"], app.config["SERVER_NAME"]
    base = f"{parts.scheme}://{parts.netloc}" if url else f"{scheme}://{name}" if name else ""
    # Flask builds paths for those hosts alone that it is told to trust.
    host = next(iter(app.config.get("TRUSTED_HOSTS") or ()), urlsplit(base).netloc or "localhost")
    below = urlunsplit(
        (scheme, host.removeprefix("."), parts.path or app.config["APPLICATION_ROOT"], "", "")
    )
    # In a context of its own: addresses are remembered in `g`.
    with app.app_context(), app.test_request_context(base_url=below):
        yield lambda path: urljoin(base, path) if path and base else ""


def _home(app: Flask) -> str:
    """The path of the dashboard; empty if there is none."""
    return app.url_for("bitmapist.index") if "bitmapist" in app.blueprints else ""


def _drawn(card: Card, url: str) -> Drawn:
    """A chart as a mail has it."""
    title, small = card.chart.title, card.small
    if small is None:
        return Drawn(title, url, "", card.problem)
    drawing = small.drawing
    if isinstance(drawing, Shares):
        rows = [Row(row.name, row.value or "-", row.rate or 0.0) for row in drawing.rows]
        return Drawn(title, url, small.figure, small.told, rows=rows)
    in_time = card.report is not None and bool(points_of(card.report))
    parts = [one.name for one in drawing.parts] if isinstance(drawing, Line) else []
    notes = [Row(full_label(one.date, "day"), one.text) for one in small.notes.annotations]
    drawn = Drawn(title, url, small.figure, small.told, parts=parts, notes=notes)
    return _in_columns(drawn, drawing, in_time)


def _in_columns(drawn: Drawn, drawing: Line | Bars, in_time: bool) -> Drawn:
    """`drawn` with the columns and the figures of a chart that has an axis."""
    if isinstance(drawing, Line):
        slots = [*enumerate(drawing.plot.slots, start=1)]
        last = len(slots) if drawing.plot.running else 0
        target = [] if drawing.target is None else [(drawing.target.y, _THIN, _TARGET)]
        columns = [
            _column([*_drawn_value(slot.y, _RUNNING if number == last else _LINE), *target])
            for number, slot in slots
        ]
        legend = [] if drawing.target is None else [(_TARGET, drawing.target.text)]
    else:
        columns = [
            _column([(piece.y, piece.height, COLOURS[piece.kind]) for piece in bar.pieces])
            for bar in drawing.plot.bars
        ]
        legend = [(COLOURS[kind], name) for kind, name in drawing.legend.items()]
    rows = [Row(name, value) for name, _, value in (tip.partition(": ") for tip in drawing.tips)]
    # Of periods the latest are shown, of others, such as 1 day later, the first.
    drawn_rows = rows[-MOST_COLUMNS:] if in_time else rows[:MOST_COLUMNS]
    return replace(
        drawn,
        columns=columns[-MOST_COLUMNS:] if in_time else columns[:MOST_COLUMNS],
        names=(drawn_rows[0].name, drawn_rows[-1].name) if rows else ("", ""),
        legend=legend,
        rows=(rows[::-1] if in_time else rows)[:MOST_ROWS],
        more=max(len(rows) - MOST_ROWS, 0),
    )


def _drawn_value(y: float | None, colour: str) -> list[tuple[float, float, str]]:
    """The piece of a column from the place of its value down; none if it has no value."""
    return [] if y is None else [(y, 100 - y, colour)]


def _column(pieces: Sequence[tuple[float, float, str]]) -> list[Block]:
    """A column of a chart, from its highest piece down.

    :param pieces: where each begins, from the top, and its height, in per cent; its colour. Later
        ones are drawn over those before.
    """
    pixels = [""] * HEIGHT
    for top, height, colour in pieces:
        if height:
            first = min(round(top * HEIGHT / 100), HEIGHT - 1)
            last = max(round((top + height) * HEIGHT / 100), first + 1)
            pixels[first:last] = [colour] * len(pixels[first:last])
    blocks = [Block(len([*same]), colour) for colour, same in groupby(pixels)]
    return blocks if blocks[0].colour else blocks[1:]


def _text(board: Board, charts: Sequence[Drawn], as_of: str, home: str) -> str:
    """The board in words."""
    lines = [board.name, f"as of {as_of}", *([home] if home else [])]
    for one in charts:
        lines += ["", one.title, f"{one.figure} {one.told}".strip()]
        width = max((len(row.name) for row in one.rows), default=0)
        lines += [f"  {row.name:{width}}  {row.value}" for row in one.rows]
        if one.more:
            lines.append(f"  and {one.more} more")
        if one.parts:
            lines.append(f"  of them: {', '.join(one.parts)}")
        lines += [f"  {note.name}: {note.value}" for note in one.notes]
        if one.url:
            lines.append(f"  {one.url}")
    return "\n".join([*lines, ""])

"""Templates, rendered apart from the application's Jinja environment.

In the application's, autoescaping may be off, delimiters may differ, templates may have the same
names as ours, and context processors may fail or query a database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import request
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ..boards import Board
from ..current import current_tracker
from ..reading.segments import Event, Flag
from ..saved import saved
from . import drawing
from .access import may_save
from .addresses import url_for
from .markup import hits, options
from .notes import changes_since, notes_on
from .pages import PAGES
from .posting import hidden_fields
from .query import BY, JOINTS, RANGES, USUAL_RANGE

if TYPE_CHECKING:
    from ..tracker import Tracker

#: The most names that a picker lists; with more, several pickers would take megabytes.
_MOST_OPTIONS = 500


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flask_bitmapist.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        url_for=url_for,
        may_save=may_save,
        hidden_fields=hidden_fields,
        changes_since=changes_since,
        notes_on=notes_on,
        saved_boards=saved_boards,
        query_of=lambda arguments: urlencode(arguments, doseq=True),
        navigation=[page for page in PAGES if page.title],
        grains=BY,
        joints=[*JOINTS],
        ranges=RANGES,
        usual_range=USUAL_RANGE,
        most_options=_MOST_OPTIONS,
        segment_of=lambda event: str(Event(event)),
        flag_of=lambda flag: str(Flag(flag)),
        vendored=json.loads(
            (files(__package__) / "static/vendor/vendored.json").read_text("utf-8")
        ),
        full_label=drawing.full_label,
        heat=drawing.heat,
        hits=hits,
        label=drawing.label,
        marks=drawing.MARKS,
        more=drawing.more,
        options=options,
        periods=drawing.periods,
        sparkline=drawing.sparkline,
    )
    environment.filters.update(
        thousands=drawing.thousands,
        percent=drawing.percent,
        points_more=drawing.points_more,
        signed=drawing.signed,
        signed_count=drawing.signed_count,
        short=drawing.short,
        tick_percent=drawing.tick_percent,
        pairs=lambda values: [(value, value) for value in values],
    )
    return environment


def saved_boards() -> Mapping[str, Board]:
    """The boards that somebody has saved, by id."""
    return saved(current_tracker().reader.redis).boards


def template(name: str) -> Template:
    """``templates/bitmapist/<name>.html``, for what is no page."""
    return _environment().get_template(f"bitmapist/{name}.html")


def render(name: str, as_of: datetime | None = None, up_to: str = "", **values: Any) -> str:
    """The page from ``templates/bitmapist/<name>.html``.

    :param as_of: the moment as of which its figures are; None is now.
    :param up_to: the name of the period with which they end, if that is over.
    """
    tracker = current_tracker()
    as_of = tracker.now() if as_of is None else as_of
    return template(name).render(
        timezone=tracker.settings.timezone,
        as_of=as_of,
        up_to=up_to,
        waiting=_waiting(tracker),
        # A page that says why there are no figures is not to wait for another answer.
        replica=None if name == "message" else tracker.server.replica(),
        endpoint=str(request.endpoint).rpartition(".")[2],
        **values,
    )


def _waiting(tracker: Tracker) -> Mapping[str, int]:
    """How many marks the server does not take, by the reason as a sentence."""
    spool = tracker.settings.spool
    # Without the file there are none, so a process that only reads need not load the spool.
    return tracker.stats().waiting if spool is not None and spool.exists() else {}

"""Find a person: by an id, or by a text of which the application says whom it means."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from uuid import UUID

from flask import Response, current_app, redirect

from ..analytics import People, profile
from ..current import current_tracker
from ..ids import LONGEST_TEXT, UnusableIdError, is_many, normal_form
from .addresses import url_for
from .answers import download
from .page import Visit
from .people import as_csv, listed
from .rendering import render

logger = logging.getLogger("flask_bitmapist")

_Id = int | str

#: The most people that are shown.
_MOST = 50
#: What people type around an id, or copy with it.
_AROUND = " \t\"'`<>()[]{}#@,;"


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a text means.

    :ivar people: their ids.
    :ivar has_more: whether the application found more than are shown.
    :ivar has_failed: whether the application's `find_user` failed.
    """

    people: list[_Id]
    has_more: bool = False
    has_failed: bool = False

    @classmethod
    def of(cls, text: str) -> Found:
        """Those whom the application finds, and whoever has `text` as an id."""
        try:
            told = [*islice(_found_by_application(text), _MOST + 1)]
        except Exception:
            # Without the text, which may be an e-mail address.
            logger.exception("find_user failed")
            return cls(_with_id(text), has_failed=True)
        people = dict.fromkeys([*told[:_MOST], *_with_id(text)])
        return cls([*people], len(told) > _MOST)


def view() -> Response:
    """The page of whoever is found; a list if there are several; else what to try."""
    visit = Visit.of_request()
    query = visit.query
    text = query.text("text").strip()[: LONGEST_TEXT + 1]
    query.close()
    found = Found.of(text) if text else Found([])
    if query.form == "csv":
        return as_csv(iter([found.people]), visit)
    if query.form == "json":
        return download(People(len(found.people), 0, found.people), "", query.form)
    if len(found.people) == 1 and not found.has_failed:
        return redirect(url_for("bitmapist.person", id=found.people[0]))  # type: ignore[return-value]
    is_unknown = bool(text) and not found.people
    page = render(
        "find",
        as_of=visit.now,
        text=text,
        found=found,
        listed=listed(found.people, visit.now),
        asks=_finder() is not None,
        erased=erased(text) if is_unknown else None,
        similar=_similar(text) if is_unknown else [],
    )
    return Response(page, mimetype="text/html")


def erased(id_: object) -> datetime | None:
    """When `id_` was erased, in the application's zone; None: never, or it identifies nobody."""
    tracker = current_tracker()
    with suppress(UnusableIdError):
        moment = tracker.reader.erased_at(id_)
        return moment and moment.astimezone(tracker.settings.timezone)
    return None


def _finder() -> Callable[[str], object] | None:
    finder: Callable[[str], object] | None
    finder = current_app.extensions["bitmapist"].finder_of(current_app)
    return finder


def _found_by_application(text: str) -> Iterator[_Id]:
    """Those whom `find_user` finds; it may raise anything."""
    finder = _finder()
    if finder is not None:
        told = current_app.ensure_sync(finder)(text)
        if told is not None:
            yield from map(normal_form, told if is_many(told) else [told])


def _with_id(text: str) -> list[_Id]:
    """Whoever has `text` as an id, if anything is recorded of them."""
    with suppress(UnusableIdError):
        known = profile(text)
        return [normal_form(text)] if known.events or known.flags else []
    return []


def _similar(text: str) -> list[_Id]:
    """People whose ids are spelt almost like `text`."""
    return [id_ for spelt in dict.fromkeys(_spellings(text)) for id_ in _with_id(spelt)]


def _spellings(text: str) -> Iterator[str]:
    """Other ways of spelling an id."""
    bare = text.strip(_AROUND)
    yield bare
    yield bare.lower()
    yield bare.upper()
    if re.fullmatch("[0-9 .,_']+", bare):
        yield re.sub("[^0-9]", "", bare).lstrip("0")
    with suppress(ValueError):
        yield str(UUID(bare))

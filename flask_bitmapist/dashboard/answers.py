"""Answers other than report pages: downloads, refusals, and what to do before there is any data."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.urls import iri_to_uri

from ..current import current_tracker
from .access import may_save
from .notes import of_request, with_annotations
from .posting import is_genuine
from .rendering import render

if TYPE_CHECKING:
    from ..analytics import Report
    from ..periods import Grain

logger = logging.getLogger("flask_bitmapist")

#: The methods that change nothing (RFC 9110, 9.2.1).
SAFE = ("GET", "HEAD", "OPTIONS")
#: Bytes of a form; a segment has 2000 characters.
_LARGEST = 64 * 1024

MAY_NOT_SAVE = """\
You may look at this dashboard, but not save anything.

If the application is yours: a check registered with @bitmapist.may_save, where bitmapist is your
FlaskBitmapist object, decides who may.
"""


def empty() -> Response:
    """The page before anything is recorded: what to paste where.

    The page polls, and does not change until something arrives: text that somebody has selected to
    copy stays selected.
    """
    if request.headers.get("HX-Trigger") == "main":
        return Response(status=204)
    return Response(render("empty"), mimetype="text/html")


def download(report: Report | None, problem: str, form: str, by: Grain | None = None) -> Response:
    """`report` as ``json`` or ``csv``.

    :param by: the grain of its periods: JSON has what is noted in them.
    :raises BadRequest: with the `problem`, if there is no report.
    """
    if report is None:
        raise BadRequest(problem)
    if form == "json":
        told = current_tracker().server.with_replica(with_annotations(report, by, of_request()))
        return Response(json.dumps(told), mimetype="application/json")
    return Response(report.to_csv(), mimetype="text/csv")


def refuse_unsafe() -> Response | None:
    """Before any view runs: 403 for a form of somebody who may not save, or of another site."""
    if request.method in SAFE:
        return None
    if not may_save():
        return Response(MAY_NOT_SAVE, status=403, mimetype="text/plain")
    if (request.content_length or 0) > _LARGEST:
        return Response("That form is too large.", status=413, mimetype="text/plain")
    if is_genuine():
        return None
    sentence = "The form was not sent by a page of this dashboard, or that page was too old."
    return _message("Nothing was saved", sentence, 403, _same_address(), "Open the page again")


def bad_request(error: BadRequest) -> Response:
    """A query that cannot be answered, with a sentence that says why."""
    page = str(request.endpoint)
    # A person's page cannot be shown without an id.
    url = url_for("bitmapist.people" if page == "bitmapist.person" else page)
    return _message("That cannot be shown", str(error.description), 400, url, "Ask again")


def no_answer(error: Exception) -> Response:
    """Redis did not answer, or refused a command. Its message goes to the log, not to the page."""
    logger.error("the dashboard cannot read from Redis: %s", error)
    refused = current_tracker().server.explain(error)
    sentence = (
        f"{refused}."
        if refused
        else "Redis did not answer, so there are no figures now. The application's log says why."
    )
    return _message("No figures at the moment", sentence, 503, _same_address(), "Try again")


def _same_address() -> str:
    """The path and the query string of the current request."""
    asked = urlsplit(iri_to_uri(request.url))
    return f"{asked.path}?{asked.query}"


def _message(title: str, sentence: str, status: int, url: str, link: str) -> Response:
    """A sentence in the format that was asked for; plain text if that is not a page.

    :param url: where the page links to.
    :param link: the text of that link.
    """
    if request.args.get("format") == "json":
        return Response(json.dumps({"error": sentence}), status, mimetype="application/json")
    if request.args.get("format") == "csv":
        return Response(sentence, status, mimetype="text/plain")
    page = render("message", title=title, text=sentence, link=link, url=url)
    return Response(page, status, mimetype="text/html")

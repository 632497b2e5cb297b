"""Answers that are no report's page: downloads, refusals, and what to do while there is nothing."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.urls import iri_to_uri

from ..current import current_tracker
from .rendering import render

if TYPE_CHECKING:
    from ..analytics import Report

logger = logging.getLogger("flask_bitmapist")


def empty() -> Response:
    """Nothing has been recorded: what to paste where.

    The page asks again by itself, and stays as it is while there is nothing new: what somebody has
    selected, to copy it, stays selected.
    """
    if request.headers.get("HX-Trigger") == "main":
        return Response(status=204)
    return Response(render("empty"), mimetype="text/html")


def download(report: Report | None, problem: str, form: str) -> Response:
    """`report` as ``json`` or ``csv``.

    :raises BadRequest: with the `problem`, if there is no report.
    """
    if report is None:
        raise BadRequest(problem)
    if form == "json":
        return Response(json.dumps(report.to_dict()), mimetype="application/json")
    return Response(report.to_csv(), mimetype="text/csv")


def bad_request(error: BadRequest) -> Response:
    """A query that cannot be answered, with the sentence that says why."""
    page = str(request.endpoint)
    # Without an id it cannot be shown either.
    url = url_for("bitmapist.people" if page == "bitmapist.person" else page)
    return _message("That cannot be shown", str(error.description), 400, url, "Ask anew")


def no_answer(error: Exception) -> Response:
    """Redis did not answer, or refused a command; what it said goes to the log, not to the page."""
    logger.error("the dashboard cannot read from Redis: %s", error)
    refused = current_tracker().server.explain(error)
    sentence = (
        f"{refused}."
        if refused
        else "Redis did not answer, so there are no figures now. The application's log says why."
    )
    asked = urlsplit(iri_to_uri(request.url))
    again = f"{asked.path}?{asked.query}"
    return _message("No figures at the moment", sentence, 503, again, "Try again")


def _message(title: str, sentence: str, status: int, url: str, link: str) -> Response:
    """A sentence, in the form that was asked for; as text for what is no page.

    :param url: where the page leads on.
    :param link: what the link to it says.
    """
    if request.args.get("format") == "json":
        return Response(json.dumps({"error": sentence}), status, mimetype="application/json")
    if request.args.get("format") == "csv":
        return Response(sentence, status, mimetype="text/plain")
    page = render("message", title=title, text=sentence, link=link, url=url)
    return Response(page, status, mimetype="text/html")

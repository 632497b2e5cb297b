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
from .rendering import render

if TYPE_CHECKING:
    from ..analytics import Report

logger = logging.getLogger("flask_bitmapist")


def empty() -> Response:
    """The page before anything is recorded: what to paste where.

    The page polls, and does not change until something arrives: text that somebody has selected to
    copy stays selected.
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
        told = current_tracker().server.with_replica(report.to_dict())
        return Response(json.dumps(told), mimetype="application/json")
    return Response(report.to_csv(), mimetype="text/csv")


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
    asked = urlsplit(iri_to_uri(request.url))
    again = f"{asked.path}?{asked.query}"
    return _message("No figures at the moment", sentence, 503, again, "Try again")


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

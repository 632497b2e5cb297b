"""The dashboard: a blueprint of server-rendered pages, closed to strangers."""

from __future__ import annotations

from flask import Blueprint, Response, request
from redis.exceptions import RedisError
from werkzeug.exceptions import BadRequest

from . import views
from .access import refuse_strangers

#: Pages are self-contained: one stylesheet, no script, nothing from elsewhere, in no one's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def blueprint() -> Blueprint:
    """A fresh blueprint named ``bitmapist``; the extension registers it under the URL prefix."""
    pages = Blueprint("bitmapist", __name__, static_folder="static")
    pages.before_request(refuse_strangers)
    pages.after_request(_add_headers)
    pages.add_url_rule("/", "index", views.index)
    pages.add_url_rule("/cohort", "cohort", views.cohort)
    pages.register_error_handler(BadRequest, views.bad_request)
    pages.register_error_handler(RedisError, views.no_answer)
    return pages


def _add_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Robots-Tag"] = "noindex"
    if request.endpoint != "bitmapist.static":
        response.headers["Cache-Control"] = "no-store"
    return response

"""The dashboard: a blueprint of server-rendered pages, closed to strangers."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request
from redis.exceptions import RedisError
from werkzeug.exceptions import BadRequest

from .access import refuse_strangers

#: Pages are self-contained: styles, scripts and figures from this blueprint, nothing inline,
#: nothing from elsewhere, in no one's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Endpoint -> address; the first two are those of 2016.
ADDRESSES = {
    "index": "/",
    "cohort": "/cohort",
    "funnel": "/funnel",
    "lifecycle": "/lifecycle",
    "stickiness": "/stickiness",
    "compare": "/compare",
    "people": "/people",
    "person": "/person",
}


def blueprint() -> Blueprint:
    """A fresh blueprint named ``bitmapist``; the extension registers it under the URL prefix."""
    pages = Blueprint("bitmapist", __name__, static_folder="static")
    pages.before_request(refuse_strangers)
    pages.after_request(_add_headers)
    for endpoint, address in ADDRESSES.items():
        pages.add_url_rule(address, endpoint, _page(endpoint))
    pages.register_error_handler(BadRequest, _bad_request)
    pages.register_error_handler(RedisError, _no_answer)
    return pages


# The views are imported when they run: a worker that only marks never loads NumPy.


def _page(endpoint: str) -> Callable[[], Response]:
    def answer() -> Response:
        from .views import VIEWS

        return VIEWS[endpoint]()

    return answer


def _bad_request(error: BadRequest) -> Response:
    from .page import bad_request

    return bad_request(error)


def _no_answer(error: RedisError) -> Response:
    from .page import no_answer

    return no_answer(error)


def _add_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Referrer-Policy"] = "same-origin"
    if request.endpoint != "bitmapist.static":
        response.headers["Cache-Control"] = "no-store"
    return response

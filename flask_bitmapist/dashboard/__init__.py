"""The dashboard: a blueprint of server-rendered pages, closed to strangers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest

from ..refusals import SERVER_ERRORS
from .access import refuse_strangers
from .pages import PAGES, PageEntry

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Pages are self-contained: styles, scripts and figures from this blueprint, nothing inline,
#: nothing from elsewhere, in no one's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "same-origin",
}


def blueprint() -> Blueprint:
    """A fresh blueprint named ``bitmapist``; the extension registers it under the URL prefix."""
    pages = Blueprint("bitmapist", __name__, static_folder="static")
    pages.before_request(refuse_strangers)
    pages.after_request(_seal)
    for page in PAGES:
        pages.add_url_rule(page.address, page.endpoint, _answer_of(page))
    pages.register_error_handler(BadRequest, _bad_request)
    for error in SERVER_ERRORS:
        pages.register_error_handler(error, _no_answer)
    return pages


def _answer_of(page: PageEntry) -> Callable[[], Response]:
    return lambda: page.view()


def _bad_request(error: BadRequest) -> Response:
    from .answers import bad_request

    return bad_request(error)


def _no_answer(error: Exception) -> Response:
    from .answers import no_answer

    return no_answer(error)


class _Sealed(Response):
    """An answer whose headers the application's own ``after_request`` cannot weaken."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers.update(HEADERS)
        if request.endpoint != "bitmapist.static" or self.status_code >= 400:
            headers["Cache-Control"] = "no-store"
        return headers


def _seal(response: Response) -> Response:
    return cast(Response, _Sealed.force_type(response))

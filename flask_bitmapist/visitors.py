"""Visitors who are not logged in: each browser has an id, in a signed cookie of the application.

The cookie is set where a visitor is marked, and nowhere else. It is not renewed: responses to those
who have one set none.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe

from flask import Flask, Response, current_app, has_request_context, request
from itsdangerous import BadData, URLSafeTimedSerializer

from .current import TRACKER, current_tracker
from .tracker import Tracker

#: The cookie's name.
COOKIE = "bitmapist_visitor"
#: How the ids of visitors begin: reports show what they are.
PREFIX = "visitor:"
#: Random bytes in an id: nobody can guess another visitor's, and no two are the same.
_CHANCE = 12
#: In an app's ``extensions``: whether its responses bring new visitors their cookies.
_TRACKED = "bitmapist.visitors"
#: In a request's environment: its `Visitor`, and whether its response has been made.
_VISITOR, _ANSWERED = "flask_bitmapist.visitor", "flask_bitmapist.answered"


@dataclass(slots=True)
class Visitor:
    """The visitor who makes the current request."""

    id: str
    #: Whether the browser does not know the id.
    is_new: bool
    #: Whether something has been marked, so that the browser needs the cookie.
    is_marked: bool = False


def track(app: Flask) -> None:
    """Bring new visitors of `app` their cookies. Harmless when repeated."""
    if _TRACKED not in app.extensions:
        app.extensions[_TRACKED] = True
        app.after_request(_answer)


def visitor_id() -> str | None:
    """The id in the visitor's cookie of the current request; None if there is no valid cookie.

    Use it for work that is done later, such as a background task that marks, or an erasure.

    :raises RuntimeError: if the app has no ``secret_key``.
    """
    if not has_request_context():
        return None
    age = current_tracker().settings.visitor_age.total_seconds()
    signer = _signer(current_app)
    try:
        return str(signer.loads(request.cookies.get(COOKIE, ""), max_age=int(age)))
    except BadData:
        return None


def current_visitor(tracker: Tracker) -> Visitor | None:
    """The visitor who makes the current request, with a new id if they have none.

    It is None if there is no request, if the request is ignored, or if it is too late to send a
    cookie, as in a response that is being streamed.

    :raises RuntimeError: as `visitor_id`.
    """
    if not has_request_context() or not tracker.enabled or tracker.ignores():
        return None
    found: Visitor | None = request.environ.get(_VISITOR)
    if found is None:
        id_ = visitor_id()
        if id_ is None and _ANSWERED in request.environ:
            return None
        found = Visitor(id_ or PREFIX + token_urlsafe(_CHANCE), is_new=id_ is None)
        request.environ[_VISITOR] = found
    return found


def _answer(response: Response) -> Response:
    """Add the cookie to `response`, if a visitor without one has been marked."""
    request.environ[_ANSWERED] = True
    visitor: Visitor | None = request.environ.get(_VISITOR)
    if visitor is None or not (visitor.is_new and visitor.is_marked):
        return response
    app = current_app
    interface = app.session_interface
    age = app.extensions[TRACKER].settings.visitor_age
    response.set_cookie(
        COOKIE,
        str(_signer(app).dumps(visitor.id)),
        max_age=age,
        path=interface.get_cookie_path(app),
        domain=interface.get_cookie_domain(app),
        secure=interface.get_cookie_secure(app),
        httponly=True,
        samesite="Lax",
    )
    # A shared cache would give one visitor's id to all others.
    response.vary.add("Cookie")
    response.cache_control.public = False
    response.cache_control.s_maxage = None
    response.cache_control.private = True
    return response


def _signer(app: Flask) -> URLSafeTimedSerializer:
    if not app.secret_key:
        raise RuntimeError(
            "visitors have an id in a signed cookie: set app.secret_key, or leave out "
            "BITMAPIST_VISITORS"
        )
    # The last key signs; the others, of which Flask 3.1 and newer know, are still accepted.
    keys = [*(app.config.get("SECRET_KEY_FALLBACKS") or ()), app.secret_key]
    options = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeTimedSerializer(keys, salt="flask-bitmapist.visitor", signer_kwargs=options)

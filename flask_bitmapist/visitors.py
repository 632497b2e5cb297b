"""Visitors who are not logged in: each browser has an id, in a signed cookie of the application.

The cookie is set where a visitor is marked, and nowhere else. It is not renewed: responses to those
who have one set none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from flask import Flask, Response, current_app, has_request_context, request
from itsdangerous import BadData, URLSafeTimedSerializer

from .current import TRACKER, current_tracker
from .ids import VISITOR, normal_form
from .tracker import Tracker

#: The cookie's name.
COOKIE = "bitmapist_visitor"
#: Random bytes in an id: nobody can guess another visitor's, and no two are the same.
_CHANCE = 12
#: By how much earlier than in the cookie a visitor may have been marked: in another zone's day.
_MARGIN = timedelta(days=1)
#: In an app's ``extensions``: whether its responses bring new visitors their cookies.
_TRACKED = "bitmapist.visitors"
#: In a request's environment: its `Visitor`, and whether its response has been made.
_VISITOR, _ANSWERED = "flask_bitmapist.visitor", "flask_bitmapist.answered"
#: Likewise: whether the visitor in its cookie has become a user.
_PROMOTED = "flask_bitmapist.promoted"


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
    known = _of_cookie() if has_request_context() else None
    return None if known is None else known[0]


def promote_visitor(user: object) -> None:
    """Make the visitor of the current request the user who has just logged in.

    It is called for logins of Flask-Login, where ``BITMAPIST_PROMOTE_VISITORS`` is set; call it
    where your application logs users in without it. What the visitor has done counts for `user`,
    soon: a thread sees to it, so this neither waits for the server nor fails with it. The response
    removes the visitor's cookie: the next visitor on this browser is another one.

    Nothing is done if the request is ignored, or has no visitor.

    :param user: whatever the user is marked with.
    :raises UnusableIdError: for something that identifies nobody.
    :raises RuntimeError: if ``BITMAPIST_VISITORS`` is not set, or as `visitor_id`.
    """
    tracker = current_tracker()
    if not tracker.settings.visitors:
        raise RuntimeError("promote_visitor() needs BITMAPIST_VISITORS = True")
    who = normal_form(user)
    if not has_request_context() or not tracker.enabled or tracker.ignores():
        return
    marked: Visitor | None = request.environ.get(_VISITOR)
    known = _of_cookie()
    # What the rest of this request marks is the user's.
    request.environ[_VISITOR] = Visitor(str(who), is_new=False)
    request.environ[_PROMOTED] = True
    if known is not None:
        tracker.promote_later(known[0], who, (known[1] - _MARGIN).date())
    elif marked is not None and marked.is_marked:
        tracker.promote_later(marked.id, who, (datetime.now(UTC) - _MARGIN).date())


def _of_cookie() -> tuple[str, datetime] | None:
    """The visitor in the cookie of the current request, and when they got it."""
    if _PROMOTED in request.environ:
        return None
    age = current_tracker().settings.visitor_age.total_seconds()
    held = request.cookies.get(COOKIE, "")
    try:
        id_, since = _signer(current_app).loads(held, max_age=int(age), return_timestamp=True)
    except BadData:
        return None
    return str(id_), since


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
        found = Visitor(id_ or VISITOR + token_urlsafe(_CHANCE), is_new=id_ is None)
        request.environ[_VISITOR] = found
    return found


def _answer(response: Response) -> Response:
    """Add the cookie to `response`, if a visitor without one has been marked.

    Remove it, if the visitor has become a user.
    """
    request.environ[_ANSWERED] = True
    visitor: Visitor | None = request.environ.get(_VISITOR)
    is_new = visitor is not None and visitor.is_new and visitor.is_marked
    if not is_new and not (_PROMOTED in request.environ and COOKIE in request.cookies):
        return response
    app = current_app
    interface = app.session_interface
    attributes: Any = {
        "path": interface.get_cookie_path(app),
        "domain": interface.get_cookie_domain(app),
        "secure": interface.get_cookie_secure(app),
        "httponly": True,
        "samesite": "Lax",
    }
    if visitor is not None and is_new:
        age = app.extensions[TRACKER].settings.visitor_age
        response.set_cookie(COOKIE, str(_signer(app).dumps(visitor.id)), max_age=age, **attributes)
    else:
        response.delete_cookie(COOKIE, **attributes)
    # A shared cache would give one visitor's id to all others, or take theirs away.
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

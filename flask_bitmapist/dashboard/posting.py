"""Forms that change something are sent by our own pages, not by those of other sites.

Each form has a token, signed with the application's ``SECRET_KEY`` and bound to a cookie of the
browser. The browser itself says whether a page of another site has sent the form, and that is
refused, too. None of this needs the application's forms; where Flask-WTF protects them all, its
token is in ours as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import urlsplit

from flask import Response, after_this_request, current_app, request, url_for
from itsdangerous import BadData, URLSafeTimedSerializer

#: The cookie that a token is bound to; what it holds is known to this browser alone.
_COOKIE = "bitmapist_browser"
_FIELD = "bitmapist_token"
#: Where a request keeps its fields.
_KEPT = "flask_bitmapist.fields"
#: Seconds for which an open page can be used.
_LIFE = 24 * 60 * 60


def hidden_fields() -> Mapping[str, str]:
    """The hidden fields of a form that is sent by POST: name -> value."""
    kept = request.environ
    if _KEPT not in kept:
        kept[_KEPT] = {_FIELD: _serializer().dumps(_browser()), **_of_application()}
    fields: Mapping[str, str] = kept[_KEPT]
    return fields


def is_genuine() -> bool:
    """Whether the form of the current request was sent by one of our pages, not long ago."""
    return _is_from_here() and _is_signed()


def _browser() -> str:
    """What this browser's cookie holds; the answer sets it if there is none."""
    there = request.cookies.get(_COOKIE)
    if there:
        return there
    drawn = secrets.token_urlsafe(16)

    @after_this_request
    def remember(response: Response) -> Response:
        response.set_cookie(
            _COOKIE,
            drawn,
            path=urlsplit(url_for("bitmapist.index")).path,
            secure=request.is_secure,
            httponly=True,
            # Strict would leave it out when somebody follows a link to the dashboard, which then
            # would set another one, and forms that are open in other windows would be refused.
            samesite="Lax",
        )
        return response

    return drawn


def _is_from_here() -> bool:
    """Whether a page of this origin has sent it, as far as the browser says.

    All current browsers send Sec-Fetch-Site to hosts that they trust (HTTPS and localhost), and
    Origin with each POST.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


def _is_signed() -> bool:
    """Whether its token was made for this browser, and is not too old."""
    try:
        browser = str(_serializer().loads(request.form.get(_FIELD, ""), max_age=_LIFE))
    except BadData:
        return False
    return compare_digest(browser.encode(), request.cookies.get(_COOKIE, "").encode())


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(current_app.secret_key), salt="flask_bitmapist.dashboard")


def _of_application() -> Mapping[str, str]:
    """The token that Flask-WTF's CSRFProtect asks for, where the application has it."""
    if "csrf" not in current_app.extensions:
        return {}
    make = current_app.jinja_env.globals.get("csrf_token")
    field = current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
    return {field: make()} if callable(make) else {}

"""Who may see the dashboard: whom the application's check lets in; nobody, if it fails."""

from __future__ import annotations

import logging
from typing import Any, cast

from flask import Response, current_app, request

logger = logging.getLogger("flask_bitmapist")

CLOSED = """\
This dashboard is closed to you.

If the application is yours: a check registered with @bitmapist.dashboard_access, where bitmapist is
your FlaskBitmapist object, decides who may see it. Without one it is open in debug mode only.
"""


def is_open() -> bool:
    """Whether the current request may see the dashboard of the current application."""
    check = current_app.extensions["bitmapist"].access_check
    if check is None:
        return current_app.debug or current_app.testing
    try:
        # An async check has to be awaited: its coroutine is true whatever it would return.
        return bool(current_app.ensure_sync(check)())
    except Exception:
        logger.exception("the check of dashboard_access failed, so the dashboard stays closed")
        return False


def refuse_strangers() -> Any:
    """Before any view, static file or report runs: 403, or a redirect to the app's log-in page."""
    if is_open():
        return None
    if _may_log_in():
        return current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
    closed = Response(CLOSED, status=403, mimetype="text/plain")
    if "HX-Request" in request.headers:
        # A session has ended while a page was open: load it as a whole, which may ask to log in.
        closed.headers["HX-Refresh"] = "true"
    return closed


def _may_log_in() -> bool:
    """Whether a page is asked for by somebody whom the app's check would know after logging in."""
    manager = getattr(current_app, "login_manager", None)
    if (
        manager is None
        or not manager.login_view
        or current_app.extensions["bitmapist"].access_check is None
        or request.endpoint == "bitmapist.static"
        or request.args.get("format", "html") != "html"
        or "HX-Request" in request.headers
    ):
        return False
    from flask_login import current_user

    try:
        return not cast(bool, current_user.is_authenticated)
    except Exception:
        logger.exception("Flask-Login failed to load the user, so the dashboard stays closed")
        return False

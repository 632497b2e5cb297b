"""Who may see the dashboard: whom the application's check lets in; nobody, if it fails."""

from __future__ import annotations

import logging

from flask import Response, current_app

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


def refuse_strangers() -> Response | None:
    """Answer 403 before any view, static file or report runs, unless the dashboard is open."""
    return None if is_open() else Response(CLOSED, status=403, mimetype="text/plain")

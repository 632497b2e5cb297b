"""Who may see the dashboard, and who may save: whom the application's check names, if it works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import iscoroutine
from typing import Any

from flask import Response, current_app, request

logger = logging.getLogger("flask_bitmapist")

#: Where a request keeps whether it may save.
_KEPT = "flask_bitmapist.may_save"

CLOSED = """\
This dashboard is closed to you.

If the application is yours: a check registered with @bitmapist.dashboard_access, where bitmapist is
your FlaskBitmapist object, decides who may see it. Without one it is open in debug mode only.
"""


def is_open() -> bool:
    """Whether the current request may see the dashboard of the current application."""
    check = _check()
    if check is None:
        return current_app.debug or current_app.testing
    return _grants(check, "dashboard_access", "so the dashboard stays closed")


def may_save() -> bool:
    """Whether the current request may save what the dashboard keeps: boards, questions, flags.

    Nobody may without a check, not even in debug mode. The check is asked once in a request.
    """
    # Not in `g`: requests that are made inside an app context share that.
    kept = request.environ
    if _KEPT not in kept:
        kept[_KEPT] = _may_save()
    granted: bool = kept[_KEPT]
    return granted


def _may_save() -> bool:
    check = current_app.extensions["bitmapist"].save_check_of(current_app)
    if check is None:
        return False
    if not current_app.secret_key:
        logger.error("nobody may save, as the application has no SECRET_KEY to sign forms with")
        return False
    return _grants(check, "may_save", "so nothing can be saved")


def _grants(check: Callable[[], object], name: str, otherwise: str) -> bool:
    """Whether an application's `check` returns True; if it fails, the log says `otherwise`."""
    try:
        verdict = current_app.ensure_sync(check)()
        if verdict is not True and verdict:
            # Such as the refusal that login_required returns, or a coroutine: both are truthy.
            if iscoroutine(verdict):
                verdict.close()
            raise TypeError(f"it returned {verdict!r} rather than True or False")
    except Exception:
        logger.exception("the check of %s failed, %s", name, otherwise)
        return False
    return verdict is True


def _check() -> Callable[[], object] | None:
    check: Callable[[], object] | None
    check = current_app.extensions["bitmapist"].access_check_of(current_app)
    return check


def refuse_strangers() -> Any:
    """Before any view, static file or report runs: 403, or a redirect to the app's log-in page."""
    if is_open():
        return None
    log_in = _log_in()
    if log_in is not None:
        return log_in
    closed = Response(CLOSED, status=403, mimetype="text/plain")
    if "HX-Request" in request.headers:
        # The session ended while a page was open: reload the whole page, which may lead to the
        # log-in page.
        closed.headers["HX-Refresh"] = "true"
    return closed


def _log_in() -> Any:
    """A redirect to the log-in page, for a page request that may succeed after logging in."""
    manager = getattr(current_app, "login_manager", None)
    if (
        manager is None
        or not (manager.login_view or manager.blueprint_login_views.get(request.blueprint))
        or _check() is None
        or request.method not in ("GET", "HEAD")
        or request.endpoint == "bitmapist.static"
        or request.args.get("format", "html") != "html"
        or "HX-Request" in request.headers
    ):
        return None
    from flask_login import current_user

    try:
        return None if current_user.is_authenticated else manager.unauthorized()
    except Exception:
        logger.exception("Flask-Login failed, so the dashboard stays closed")
        return None

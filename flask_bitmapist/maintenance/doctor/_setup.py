"""The application's own settings: are marks made at all, who may see the dashboard."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask

from ...tracker import Tracker
from ._findings import Finding

_PART = "setup"


def check(app: Flask, tracker: Tracker) -> Iterator[Finding]:
    """Options that do not do what they look like, and a dashboard that is open."""
    for option, nearest in tracker.unknown_options().items():
        yield Finding(
            _PART,
            "warning",
            f"there is no option {option}",
            f"Did you mean {nearest}? If not, remove it",
        )
    if tracker.sends():
        yield Finding(_PART, "ok", "marks are made, and sent")
    else:
        yield Finding(
            _PART,
            "warning",
            "no marks are sent, as BITMAPIST_ENABLED is False, or TESTING is set",
            "Set BITMAPIST_ENABLED = True where users are",
        )
    yield _dashboard(app, tracker.settings.url_prefix)
    if app.extensions["bitmapist"].save_check_of(app) is not None and not app.secret_key:
        yield Finding(
            _PART,
            "warning",
            "nobody may save from the dashboard: may_save needs a key that signs the forms",
            "Set SECRET_KEY",
        )


def _dashboard(app: Flask, prefix: str) -> Finding:
    if "bitmapist" not in app.blueprints:
        return Finding(_PART, "ok", "the dashboard is not registered")
    if app.extensions["bitmapist"].access_check_of(app) is not None:
        return Finding(_PART, "ok", f"the dashboard at {prefix} asks dashboard_access")
    if app.debug or app.testing:
        mode = "debug mode" if app.debug else "TESTING"
        return Finding(
            _PART,
            "warning",
            f"the dashboard at {prefix} is open to everybody, because of {mode}",
            "Register a check with @bitmapist.dashboard_access, and never serve strangers in debug "
            "mode",
        )
    return Finding(
        _PART,
        "ok",
        f"the dashboard at {prefix} is closed to all, as there is no dashboard_access",
    )

"""The current app's tracker: whose marks they are, and whose events are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import current_app, has_app_context

from .faults import contained_faults
from .marks import Mark

if TYPE_CHECKING:
    from .tracker import Tracker

#: Where an app's tracker stands in its ``extensions``.
TRACKER = "bitmapist.tracker"


class _Latest:
    """The tracker that was initialised last: the one outside any application context."""

    tracker: Tracker | None = None


def set_latest_tracker(tracker: Tracker) -> None:
    """Make `tracker` the one that is used outside application contexts."""
    _Latest.tracker = tracker


def current_tracker() -> Tracker:
    """The current app's tracker; outside a context that of the app initialised last.

    :raises RuntimeError: before any `init_app`, or if the current app has had none.
    """
    if has_app_context():
        tracker: Tracker | None = current_app.extensions.get(TRACKER)
        if tracker is None:
            raise RuntimeError(
                f"the app {current_app.name!r} has no Flask-Bitmapist: call FlaskBitmapist(app)"
            )
        return tracker
    if _Latest.tracker is None:
        raise RuntimeError("Flask-Bitmapist is not initialised: call FlaskBitmapist(app) first")
    return _Latest.tracker


def publish(marks: Iterable[Mark | tuple[Any, ...]]) -> None:
    """Publish `marks` of committed rows to the current tracker; nothing raises."""
    with contained_faults("mark committed rows"):
        current_tracker().publish(marks)

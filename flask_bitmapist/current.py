"""The current app's tracker: whose marks they are, and whose events are asked for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context

from .faults import SetupError, contained_faults
from .marks import Mark

if TYPE_CHECKING:
    from .tracker import Tracker

#: Where an app's tracker stands in its ``extensions``.
TRACKER = "bitmapist.tracker"


class _Process:
    """What `init_app` leaves in the process, for whoever marks outside any application context."""

    #: The apps that were initialised, in that order.
    apps: tuple[weakref.ref[Flask], ...] = ()
    #: The tracker that was made last. It outlives its app: a script may have dropped that.
    tracker: Tracker | None = None
    #: The `apps` at the last collection of garbage.
    collected: tuple[weakref.ref[Flask], ...] = ()


def note_app(app: Flask) -> None:
    """`app` has been initialised, anew perhaps."""
    others = tuple(known for known in _Process.apps if known() not in (None, app))
    _Process.apps = (*others, weakref.ref(app))
    _Process.tracker = app.extensions[TRACKER]


def current_tracker() -> Tracker:
    """The current app's tracker; outside a context that of the only app in the process.

    :raises SetupError: a RuntimeError: before any `init_app`; if the current app has had none; if
        there are several apps and none of them is current.
    """
    if has_app_context():
        tracker: Tracker | None = current_app.extensions.get(TRACKER)
        if tracker is None:
            raise SetupError(
                f"the app {current_app.name!r} has no Flask-Bitmapist: call FlaskBitmapist(app)"
            )
        return tracker
    apps = _live_apps()
    if len(apps) > 1:
        names = ", ".join(repr(app.name) for app in apps)
        raise SetupError(
            f"{len(apps)} apps with Flask-Bitmapist are in this process ({names}), and none of "
            "them is current: say whose events these are, with app.app_context():"
        )
    if apps:
        return apps[0].extensions[TRACKER]  # type: ignore[no-any-return]
    if _Process.tracker is None:
        raise SetupError("Flask-Bitmapist is not initialised: call FlaskBitmapist(app) first")
    return _Process.tracker


def _live_apps() -> list[Flask]:
    known = _Process.apps
    apps = [app for app in (reference() for reference in known) if app is not None]
    if len(apps) < 2 or _Process.collected is known:
        return apps
    # An app that was dropped, such as that of the test before, refers to itself: it is gone only
    # when the collector has run, and until then it must not be counted.
    del apps
    gc.collect()
    _Process.collected = known
    return [app for app in (reference() for reference in known) if app is not None]


def publish(marks: Iterable[Mark | tuple[Any, ...]]) -> None:
    """Publish `marks` of committed rows to the current tracker; nothing raises."""
    with contained_faults("mark committed rows"):
        current_tracker().publish(marks)

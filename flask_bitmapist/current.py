"""The current app's tracker: the one that marks go to and reports read from."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from .faults import SetupError, contained_faults
from .marks import Mark

if TYPE_CHECKING:
    from .tracker import Tracker

#: The key of an app's tracker in its ``extensions``.
TRACKER = "bitmapist.tracker"


class _Process:
    """What `init_app` leaves in the process, for marks made outside any application context."""

    #: The initialised apps, in order of initialisation.
    apps: tuple[weakref.ref[Flask], ...] = ()
    #: The tracker made last. It outlives its app, which a script may have dropped.
    tracker: Tracker | None = None
    #: The `apps` at the last garbage collection.
    collected: tuple[weakref.ref[Flask], ...] = ()


def note_app(app: Flask) -> None:
    """Note that `app` has been initialised, perhaps again."""
    others = tuple(known for known in _Process.apps if known() not in (None, app))
    _Process.apps = (*others, weakref.ref(app))
    _Process.tracker = app.extensions[TRACKER]


def current_tracker() -> Tracker:
    """The current app's tracker; outside a context, the tracker of the only app in the process.

    :raises SetupError: a RuntimeError: before any `init_app`, if the current app was not
        initialised, or if there are several apps and none of them is current.
    """
    try:
        # Through the proxy itself an attribute takes longer than all else that a mark needs.
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    except RuntimeError:
        return _of_process()
    tracker: Tracker | None = app.extensions.get(TRACKER)
    if tracker is None:
        raise SetupError(f"the app {app.name!r} has no Flask-Bitmapist: call FlaskBitmapist(app)")
    return tracker


def _of_process() -> Tracker:
    """The tracker of the only app in the process."""
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
    # A dropped app, such as the previous test's, refers to itself: it lives on until the garbage
    # collector runs, but must not be counted.
    del apps
    gc.collect()
    _Process.collected = known
    return [app for app in (reference() for reference in known) if app is not None]


def publish(marks: Iterable[Mark | tuple[Any, ...]]) -> None:
    """Publish `marks` of committed rows to the current tracker; nothing raises."""
    with contained_faults("mark committed rows"):
        current_tracker().publish(marks)

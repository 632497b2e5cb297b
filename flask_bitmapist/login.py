"""Flask-Login -> ``user:logged_in``, ``user:logged_out`` and ``user:seen``.

A session revived by a remember-me cookie is not a login: such users are only marked as seen.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, g, has_app_context, request_tearing_down

try:
    from flask_login import current_user, user_logged_in, user_logged_out
except ImportError as error:
    raise ImportError(
        'Flask-Login is missing: pip install "flask-bitmapist[login]"', name=error.name
    ) from error

from .current import TRACKER
from .faults import contained_faults
from .visitors import promote_visitor

#: Marked once per user and day, whatever the user did.
SEEN = "user:seen"


def track(app: Flask) -> None:
    """Mark the logins, logouts and visits of `app`. Harmless when repeated."""
    # Module-level receivers, connected by sender: other apps are not marked, and a second call
    # connects nothing.
    user_logged_in.connect(_logged_in, sender=app)
    user_logged_out.connect(_logged_out, sender=app)
    request_tearing_down.connect(_request_ends, sender=app)


def _logged_in(sender: Flask, user: Any, **_: Any) -> None:
    _publish(sender, "user:logged_in", user)
    with contained_faults("promote a visitor"):
        id_ = user_id(user)
        if sender.extensions[TRACKER].settings.promote_visitors and id_ is not None:
            promote_visitor(id_)


def _logged_out(sender: Flask, user: Any, **_: Any) -> None:
    _publish(sender, "user:logged_out", user)
    _see(sender, user)  # at the end of the request nobody is logged in any more


def _request_ends(sender: Flask, **_: Any) -> None:
    # Flask-Login keeps the user here once the application has asked who is logged in. Asking it
    # ourselves might run the application's query for a request that needs none.
    _see(sender, g.get("_login_user"))


def _see(app: Flask, user: Any) -> None:
    with contained_faults("mark %s", SEEN):
        tracker = app.extensions["bitmapist"].tracker_of(app)
        if tracker.settings.track_seen and tracker.enabled:
            id_ = _loaded_id(user)
            if id_ is not None:
                tracker.publish_seen(SEEN, id_)


def _loaded_id(user: Any) -> Any:
    """`user_id`, without the SELECT that an `id` costs if SQLAlchemy expired it at a commit."""
    state = getattr(user, "_sa_instance_state", None)
    if state is None or hasattr(user, "__bitmapist_identity__") or "id" not in state.unloaded:
        return user_id(user)
    key = [state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key]
    return state.identity[0] if state.identity and key == ["id"] else user_id(user)


def _publish(app: Flask, event: str, user: Any) -> None:
    # An exception in a receiver would turn login_user() into a 500.
    with contained_faults("mark %s", event):
        tracker = app.extensions["bitmapist"].tracker_of(app)
        id_ = user_id(user)
        if tracker.settings.track_login and id_ is not None:
            tracker.publish([(event, id_)])


def user_id(user: Any) -> object:
    """The id under which `user` is marked; None for nobody (logged out, anonymous).

    It is the one that the model's own adapter marks, or else the user's `id`. `get_id()` comes
    last, as it may be a token that changes.
    """
    if user is None or _is_anonymous(user):
        return None
    identity = getattr(user, "__bitmapist_identity__", None)
    if identity is not None:
        return identity()
    id_ = getattr(user, "id", None)
    return user.get_id() if id_ is None else id_


def _is_anonymous(user: Any) -> bool:
    told = getattr(user, "is_anonymous", False)
    # It is a method in classes written for Flask-Login before 0.3; a bound method is always true.
    return bool(told() if callable(told) else told)


def current_user_id() -> object:
    """The id of the user logged in now; None if nobody is.

    :raises RuntimeError: if the current app has no LoginManager.
    """
    if has_app_context() and not hasattr(current_app, "login_manager"):
        raise RuntimeError(
            f"@mark without an id marks the logged-in user, but the app {current_app.name!r} has "
            "no Flask-Login: call LoginManager(app), or say whom to mark"
        )
    with contained_faults("find the logged-in user"):
        return user_id(current_user._get_current_object())
    return None

"""Flask-Login's signals -> ``user:logged_in`` and ``user:logged_out``.

A session that a remember-me cookie revives is no login: Flask-Login sends `user_loaded_from_cookie`
then, and nothing is marked.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, has_app_context

try:
    from flask_login import current_user, user_logged_in, user_logged_out
except ImportError as error:
    raise ImportError(
        'Flask-Login is missing: pip install "flask-bitmapist[login]"', name=error.name
    ) from error

from .faults import contained_faults


def track(app: Flask) -> None:
    """Mark the logins and logouts of `app`, however often this is called."""
    # Module-level receivers, connected by sender: other apps are not marked, and a second call
    # connects nothing.
    user_logged_in.connect(_logged_in, sender=app)
    user_logged_out.connect(_logged_out, sender=app)


def _logged_in(sender: Flask, user: Any, **_: Any) -> None:
    _publish(sender, "user:logged_in", user)


def _logged_out(sender: Flask, user: Any, **_: Any) -> None:
    _publish(sender, "user:logged_out", user)


def _publish(app: Flask, event: str, user: Any) -> None:
    # An exception in a receiver would turn login_user() into a 500.
    with contained_faults("mark %s", event):
        tracker = app.extensions["bitmapist"].tracker_of(app)
        id_ = user_id(user)
        if tracker.settings.track_login and id_ is not None:
            tracker.publish([(event, id_)])


def user_id(user: Any) -> object:
    """The id under which `user` is marked; None for nobody (logged out, anonymous).

    It is the one that the model's own adapter marks, else its `id`: `get_id()` comes last, as it
    may be a token that changes.
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
    # A method in classes written for Flask-Login before 0.3, and a bound method is always true.
    return bool(told() if callable(told) else told)


def current_user_id() -> object:
    """The id of whoever is logged in now; None for nobody.

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

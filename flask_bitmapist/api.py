"""bitmapist's functions and the decorator: `mark_event` and its kin, `@mark`, `get_event_names`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Any, ParamSpec, TypeVar, cast

from flask import current_app
from werkzeug.local import LocalProxy

from .current import current_tracker
from .dimensions import checked_choice, choice_of
from .faults import contained_faults
from .ids import behind, is_many, normal_form
from .marks import Mark, checked_name
from .periods import local, marked_periods, unique_key
from .registry import scanned
from .systems import client_of, names_own_system
from .tracker import Tracker, checked_moment, hour_of
from .visitors import current_visitor

_P = ParamSpec("_P")
_R = TypeVar("_R")


def mark_event(
    event_name: str,
    uuid: object,
    system: Any = None,
    now: datetime | date | Iterable[datetime | date] | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> None:
    """Mark that `uuid` did `event_name`: in its day, week and month.

    :param uuid: the id of a user or row (int, str, UUID, ObjectId, tuple for a composite key), or
        a list, set or array of ids, which are marked in one batch.
    :param system: another server: its name in ``bitmapist.SYSTEMS`` or `FlaskBitmapist.SYSTEMS`, a
        client, or a pipeline. The bits are then set at once, for plain ids only. Nothing is
        registered or spooled, and a Redis fault is raised.
    :param now: when it happened; default is now. Naive: in ``BITMAPIST_TIMEZONE``. With many ids
        also a list or an array (``datetime64``) of as many moments.
    :param track_hourly: mark the hour too; default ``BITMAPIST_TRACK_HOURLY``.
    :param track_unique: mark the undated bitmap too; default ``BITMAPIST_TRACK_UNIQUE``.
    :param use_pipeline: only for `system`: False sends each bit by itself, or, if `system` is a
        pipeline, leaves executing it to you.
    :raises TypeError: for an id or a moment of a wrong type, before any I/O.
    :raises ValueError: for an event name, id or moment that is not allowed, before any I/O.
    :raises RuntimeError: before any `FlaskBitmapist.init_app`.
    """
    is_usual = now is None and track_hourly is None and track_unique is None
    if system is None and is_usual and (type(uuid) is int or type(uuid) is str):
        current_tracker().mark(event_name, uuid)
        return
    options = (True, True, now, track_hourly, track_unique)
    _mark(event_name, uuid, options, system, use_pipeline)


def mark_visitor(event_name: str) -> None:
    """Mark that whoever makes the current request did `event_name`: a user or a visitor.

    That is the user logged in (Flask-Login), or else the visitor whose id is in a cookie; if there
    is no cookie, the response brings one. A request that is ignored marks nothing and gets none.

    :raises ValueError: for a name that cannot name an event.
    :raises RuntimeError: if ``BITMAPIST_VISITORS`` is not set, the app has no ``secret_key``, or
        before any `FlaskBitmapist.init_app`.
    """
    tracker = current_tracker()
    checked_name(event_name)
    if not tracker.enabled:
        return
    if not tracker.settings.visitors:
        raise RuntimeError(f"mark_visitor({event_name!r}) needs BITMAPIST_VISITORS = True")
    user = _who(None)
    if user is None:
        _mark_visitor(event_name)
    else:
        mark_event(event_name, user)


def _mark_visitor(event: str, *options: Any) -> None:
    """Mark the visitor who makes the current request, if there is one; they are then known."""
    visitor = current_visitor(current_tracker())
    if visitor is not None:
        mark_event(event, visitor.id, *options)
        visitor.is_marked = True


def unmark_event(
    event_name: str,
    uuid: object,
    system: Any = None,
    now: datetime | date | Iterable[datetime | date] | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
    exact: bool = True,
) -> None:
    """Take back `mark_event`, with the same arguments.

    The day's bit is cleared. The week and the month keep theirs while another of their days has
    one.

    :param exact: False also clears the week's and the month's bit, whatever other days have, as
        bitmapist does. Another `system` always works that way.
    """
    options = (False, True, now, track_hourly, track_unique, "", exact)
    _mark(event_name, uuid, options, system, use_pipeline)


def mark_unique(event_name: str, uuid: object, system: Any = None) -> None:
    """Set an undated flag (bitmapist's ``UniqueEvents``), such as ``mark_unique("premium", 42)``.

    Arguments and errors are those of `mark_event`.
    """
    _mark(event_name, uuid, (True, False), system, use_pipeline=False)


def unmark_unique(event_name: str, uuid: object, system: Any = None) -> None:
    """Clear an undated flag. Arguments and errors are those of `mark_event`."""
    _mark(event_name, uuid, (False, False), system, use_pipeline=False)


def mark_dimension(name: str, uuid: object, value: object, *, dated: bool = False) -> None:
    """Give `uuid` a value of a dimension, instead of the one that they had.

    ``mark_dimension("user:plan", 42, "pro")`` sets the flag ``user:plan=pro``, and clears those of
    all other plans. A dimension has as many values as ``BITMAPIST_DIMENSION_VALUES`` allows; later
    ones count as ``other``.

    :param name: the dimension, such as ``user:plan``: a name without ``=``.
    :param uuid: one id or many, as for `mark_event`.
    :param value: a str, int, bool or Enum; None or ``""``: no value.
    :param dated: keep who has which value for each month too. From the first such call on, all
        marks of the dimension do.
    :raises TypeError: for an id or a value of a wrong type, before any I/O.
    :raises ValueError: for a name, id or value that is not allowed, before any I/O.
    :raises RuntimeError: before any `FlaskBitmapist.init_app`.
    """
    tracker = current_tracker()
    if not tracker.enabled:
        return
    who, choice = behind(uuid), checked_choice(name, choice_of(value))
    options = (bool(choice), dated, None, None, None, "", True, choice)
    if is_many(who):
        tracker.record_many(name, who, *options)
    else:
        tracker.record([Mark(name, who, *options)])


def _mark(
    event: str, uuid: object, options: tuple[Any, ...], system: Any, use_pipeline: bool
) -> None:
    """Mark or unmark each of `uuid`; `options` are the rest of a `Mark`."""
    tracker = current_tracker()
    if not tracker.enabled:
        return
    who = behind(uuid)
    if names_own_system(tracker, system):
        if is_many(who):
            tracker.record_many(event, who, *options)
        else:
            tracker.record([Mark(event, who, *options)])
        return
    marks = [Mark(event, id_, *options) for id_ in (who if is_many(who) else [who])]
    # All ids are checked before the first is sent: one wrong id among many marks nothing.
    bits = [bit for mark in marks for bit in _bits_elsewhere(tracker, mark, system)]
    client = client_of(system)
    is_ignored = options[0] and tracker.ignores()
    if Tracker.recorder is None and not is_ignored and not tracker.keeps_marks_in_process():
        _send(client, bits, use_pipeline)


def _send(client: Any, bits: Iterable[tuple[str, int, int]], use_pipeline: bool) -> None:
    sender = client.pipeline() if use_pipeline else client
    for bit in bits:
        sender.setbit(*bit)
    if use_pipeline:
        sender.execute()


def _bits_elsewhere(tracker: Tracker, mark: Mark, system: Any) -> Iterator[tuple[str, int, int]]:
    """Key, offset and value of the bits that `mark` sets where only bitmapist's keys are kept."""
    event, offset = checked_name(mark.event), normal_form(mark.id)
    if not isinstance(offset, int):
        raise TypeError(f"system={system!r} takes plain ids alone, not {mark.id!r}")
    offset, settings = tracker.checked_offset(offset), tracker.settings
    if mark.dated:
        when = tracker.now() if mark.when is None else checked_moment(mark.when)
        hourly = settings.track_hourly if mark.hourly is None else mark.hourly
        for period in marked_periods(hour_of(local(when, settings.timezone)), hourly):
            yield period.key(event), offset, int(mark.value)
    unique = settings.track_unique if mark.unique is None else mark.unique
    if unique or not mark.dated:
        yield unique_key(event), offset, int(mark.value)


def get_event_names(system: Any = None, prefix: str = "", batch: int = 10_000) -> list[str]:
    """The names of the events on the server, sorted.

    These are the registered events, and those that a SCAN finds from bitmapist or 0.1.2 (repeated
    after 10 s).

    :param system: another server, as for `mark_event`; its names come from a SCAN.
    :param prefix: only names that begin with it.
    :param batch: only for `system`: how many keys each step of the SCAN asks for.
    """
    tracker = current_tracker()
    if names_own_system(tracker, system):
        names = tracker.reader.event_names()
    else:
        names = sorted({name for part in scanned(client_of(system), batch) for name in part})
    return [name for name in names if name.startswith(prefix)]


def mark(
    event_name: str,
    uuid: Any = None,
    system: Any = None,
    now: datetime | date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Mark `event_name` each time the decorated function, such as a view, returns.

    Nothing is marked when it raises (``abort()`` included). Works on ``def`` and ``async def``. Put
    it below ``@app.route``::

        @app.route("/")
        @mark("index:visited")
        def index(): ...

    :param uuid: who did it. If absent, the user logged in (Flask-Login) when the function is
        called; if nobody is, the visitor, where ``BITMAPIST_VISITORS`` is set, else nobody. A
        callable is called after the function returns, with those of the function's arguments that
        it accepts; None means nobody. A ``LocalProxy`` is resolved when the function is called.
        Anything else is the id itself: ``@mark("x", current_user.id)`` would read the id at import
        time, when there is no user, so write ``@mark("x")``.
    :raises TypeError: when decorating, if `now` is neither a date nor a datetime.
    :raises ValueError: for an event name or moment that is not allowed, when decorating.
    :raises RuntimeError: when called, if `uuid` is absent and the app has neither Flask-Login nor
        ``BITMAPIST_VISITORS``.

    The other arguments are those of `mark_event`. Unusable ids and Redis faults are logged.
    """
    checked_name(event_name)
    if now is not None:
        local(checked_moment(now), UTC)
    options = (system, now, track_hourly, track_unique, use_pipeline)

    def decorator(function: Callable[_P, _R]) -> Callable[_P, _R]:
        def publish_for(who: Any, *args: Any, **kwargs: Any) -> None:
            with contained_faults("mark %r", event_name):
                if callable(who):
                    who = who(**_arguments_for(who, function, *args, **kwargs))
                if who is not None:
                    mark_event(event_name, who, *options)
                elif uuid is None and current_tracker().settings.visitors:
                    _mark_visitor(event_name, *options)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaiting(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                who = _who(uuid)
                result = await function(*args, **kwargs)
                publish_for(who, *args, **kwargs)
                return result

            return cast(Callable[_P, _R], awaiting)

        @functools.wraps(function)
        def calling(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            who = _who(uuid)
            result = function(*args, **kwargs)
            publish_for(who, *args, **kwargs)
            return result

        return calling

    return decorator


def _who(uuid: Any) -> Any:
    """The user to mark, as far as known when the decorated function is called."""
    if isinstance(uuid, LocalProxy):
        with contained_faults("find whom to mark"):
            return behind(uuid) if current_tracker().enabled else None
        return None
    if uuid is not None or not current_tracker().enabled:
        return uuid
    if current_tracker().settings.visitors and not hasattr(current_app, "login_manager"):
        return None
    try:
        from .login import current_user_id
    except ImportError as error:
        raise RuntimeError(f"@mark needs a user id or Flask-Login: {error}") from error
    return current_user_id()


def _arguments_for(
    who: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """The arguments of the call ``function(*args, **kwargs)`` that `who` takes, by name."""
    wanted = inspect.signature(who).parameters.values()
    given = inspect.signature(function).bind(*args, **kwargs)
    given.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in given.arguments.items():
        if given.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = value
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in wanted):
        return named
    return {p.name: named[p.name] for p in wanted if p.name in named}

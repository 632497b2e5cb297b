"""The core: what a mark is, and how one application's marks are checked, dated and sent.

Knows no ORM and no view. Everything that marks ends in `Tracker.record` (a direct call: bad input
raises, before any I/O) or `Tracker.publish` (after a commit, a login, a view: nothing raises).
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import bitmapist
from flask import current_app, has_app_context
from werkzeug.local import LocalProxy

from .config import Settings
from .delivery import Delivery
from .ids import IdMap, behind, normal_form
from .periods import local
from .registry import PLAIN, Catalogue, Known, Registry, mapped_kind
from .spool import Spool, server_of
from .writer import SettledMark, Writer, mismatch

logger = logging.getLogger("flask_bitmapist")

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Where an app's tracker stands in its ``extensions``.
TRACKER = "bitmapist.tracker"
# Of a Redis string, which holds 512 MiB at most: asking for a later one is an error.
_BITS = 2**32
#: Longest event name, in characters.
LONGEST_NAME = 200


class Mark(NamedTuple):
    """A user or a row did something: ``Mark("post:published", 7)``.

    A plain tuple ``("post:published", 7)`` is as good wherever marks are taken.
    """

    event: str
    #: Anything that `flask_bitmapist.ids.normal_form` takes.
    id: object
    #: False takes the mark back.
    value: bool = True
    #: False: no date, only the undated bitmap (bitmapist's ``UniqueEvents``).
    dated: bool = True
    #: When it happened; None is the moment at which it is recorded.
    when: datetime | date | None = None
    #: None: as ``BITMAPIST_TRACK_HOURLY`` says.
    hourly: bool | None = None
    #: None: as ``BITMAPIST_TRACK_UNIQUE`` says.
    unique: bool | None = None
    #: Name of the id map of a textual id; '' is the users' own.
    space: str = ""


class Tracker:
    """Marks the events of one application on its server."""

    def __init__(self, settings: Settings, quick: Any, patient: Any) -> None:
        """
        :param quick: redis client for marking, with ``settings.timeout``.
        :param patient: redis client for bulk writes and reports.
        """
        self.settings = settings
        #: redis client for reading.
        self.redis = patient
        self._registry = Registry(str(settings.timezone))
        self._id_map = IdMap()
        writer = Writer(
            quick,
            patient,
            registry=self._registry,
            id_map=self._id_map,
            # What stands on the server may be later than the moment that `at` gives.
            clock=lambda: max(self.now(), local(None, settings.timezone)),
            zone=settings.timezone,
            max_id=settings.max_id,
            ttl=settings.ttl,
        )
        self._delivery = Delivery(
            writer,
            Spool(settings.spool, server_of(quick)) if settings.spool else None,
            background=settings.delivery == "background",
        )

    def now(self) -> datetime:
        """The moment at which marks are dated, as naive local time: the clock's, or `at`'s."""
        return local(_moments.get().get(id(self)), self.settings.timezone)

    @contextmanager
    def at(self, when: datetime | date) -> Iterator[None]:
        """Date the marks made inside, models' and logins' too, as if it were `when`.

        :param when: aware, or naive in ``BITMAPIST_TIMEZONE``. For imports, demos and tests.
        :raises TypeError: if it is neither a date nor a datetime.
        """
        if not isinstance(when, date):
            raise TypeError(f"at() takes a date or datetime, not {when!r}")
        token = _moments.set(MappingProxyType({**_moments.get(), id(self): when}))
        try:
            yield
        finally:
            _moments.reset(token)

    def record(self, marks: Iterable[Mark | tuple[Any, ...]]) -> None:
        """Check `marks` and deliver them; a fault of Redis is logged and the marks are spooled.

        :raises TypeError: for something that is no mark or no id.
        :raises ValueError: for an event name, id or moment that is not allowed. None is recorded.
        """
        if self.settings.enabled:
            hour = _hour_of(self.now())
            settled = [self._settle(Mark(*mark), hour) for mark in marks]
            kinds: dict[str, str] = {}
            for mark in settled:
                kind = kinds.setdefault(mark.event, mark.kind)
                if mark.kind != kind:
                    raise ValueError(mismatch(mark.event, mark.kind, kind))
            self._submit(settled)

    def publish(self, marks: Iterable[Mark | tuple[Any, ...]]) -> None:
        """Deliver marks that come from data: one that is not allowed is logged and left out."""
        if not self.settings.enabled:
            return
        hour = _hour_of(self.now())
        settled = []
        for mark in marks:
            with contained_faults("mark %s", mark):
                settled.append(self._settle(Mark(*mark), hour))
        self._submit(settled)

    def flush(self) -> bool:
        """Deliver what is queued or spooled.

        :returns: True when nothing is left.
        """
        return self._delivery.flush()

    def event_names(self) -> list[str]:
        """The names of all events on the server, sorted, bitmapist's own included."""
        return self._registry.names(self.redis)

    def catalogue(self) -> Catalogue:
        """The names of all events, and those of all flags, bitmapist's own included, sorted."""
        return self.known().catalogue

    def known(self, *, scanned: bool = True) -> Known:
        """All events and flags, bitmapist's own included, with the kinds of their ids. Reads only.

        Of its own, which may be any text, only those that a report takes.

        :param scanned: False leaves bitmapist's own out, whose ids are plain.
        """
        events, flags = self._registry.known(self.redis, scanned=scanned)
        return Known(
            {name: since for name, since in events.items() if _is_name(name)},
            {name: space for name, space in flags.items() if _is_name(name)},
        )

    def reindex(self) -> list[str]:
        """Register the events and flags that others, such as bitmapist itself, have marked.

        Their names need no SCAN afterwards, and reports know since when there are marks, also if
        earlier ones have come in meanwhile.

        :returns: the names that were not registered before, sorted.
        :raises redis.RedisError: if the server does not answer.
        """
        return self._registry.reindex(self.redis, local(None, self.settings.timezone))

    def space(self, names: Iterable[str]) -> str | None:
        """The id map that the events and flags `names` share; None if their ids are plain.

        No round trip if this process has marked them all.

        :raises ValueError: if their ids are of different kinds.
        """
        return self._registry.space(self.redis, names)

    def space_and_first_day(
        self, names: Iterable[str], events: Iterable[str]
    ) -> tuple[str | None, date | None]:
        """The `space` of `names`, and the first day on which any of `events` was ever marked.

        One round trip for both; None if no event was.

        :raises ValueError: if the ids of `names` are of different kinds.
        """
        return self._registry.space_and_first_day(self.redis, names, events, self.now)

    def offset_of(self, identifier: object, space: str | None) -> int | None:
        """The bit of `identifier` in the events of `space`; None if it never had one. Reads only.

        :raises UnusableIdError: for something that identifies nobody.
        """
        return self.offsets_of(identifier, {space})[space]

    def offsets_of(
        self, identifier: object, spaces: Collection[str | None]
    ) -> dict[str | None, int | None]:
        """The bit of `identifier` in the events of each of `spaces`, in one round trip.

        None where it never had one. Errors are those of `offset_of`.
        """
        form = normal_form(identifier)
        offsets: dict[str | None, int | None] = dict.fromkeys(spaces)
        if None in offsets and isinstance(form, int) and form < _BITS:
            offsets[None] = form
        mapped = [space for space in spaces if space is not None]
        return offsets | (self._id_map.lookup(self.redis, str(form), mapped) if mapped else {})

    def ids_at(self, offsets: Iterable[int], space: str) -> list[str | None]:
        """The ids behind `offsets` in the id map `space`. Reads only."""
        return self._id_map.ids(self.redis, space, offsets)

    def _submit(self, settled: list[SettledMark]) -> None:
        if settled:
            self._delivery.submit(settled)

    def _settle(self, mark: Mark, now: datetime) -> SettledMark:
        """`mark`, ready to be delivered; `now` is the hour of marks without a moment."""
        event, id_, value, dated, when, hourly, unique, space = mark
        event = checked_name(event)
        id_ = self._checked_id(normal_form(id_), space)
        if when is not None:
            now = _hour_of(local(_checked_moment(when), self.settings.timezone))
        kind = PLAIN if isinstance(id_, int) else mapped_kind(space)
        registered = self._registry.known_kind(event)
        if registered is not None and registered != kind:
            raise ValueError(mismatch(event, kind, registered))
        return SettledMark(
            event,
            id_,
            value,
            now if dated else None,
            self.settings.track_hourly if hourly is None else hourly,
            self.settings.track_unique if unique is None else unique,
            kind,
        )

    def _checked_id(self, id_: int | str, space: str) -> int | str:
        if self.settings.id_map == "always":
            return str(id_)
        if isinstance(id_, str):
            if self.settings.id_map == "never":
                raise ValueError(
                    f"the id {id_!r} is no number, and BITMAPIST_ID_MAP is 'never': "
                    f"set it to 'auto' to give such ids ({mapped_kind(space)}) offsets of their own"
                )
            return id_
        return self.checked_offset(id_)

    def checked_offset(self, id_: int) -> int:
        """`id_`, if it may be the offset of a bit.

        :raises ValueError: naming ``BITMAPIST_MAX_ID``.
        """
        if id_ > self.settings.max_id:
            raise ValueError(
                f"the id {id_} is above BITMAPIST_MAX_ID ({self.settings.max_id}): one bit there "
                f"would cost {id_ // 8 // 2**20} MiB a key. Set BITMAPIST_ID_MAP='always' for "
                "sparse ids, or raise the limit"
            )
        return id_


# One variable for all trackers: a ContextVar of each tracker's own would never be collected.
_moments: ContextVar[Mapping[int, datetime | date]] = ContextVar(
    "bitmapist_moments", default=MappingProxyType({})
)


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _checked_moment(when: object) -> datetime | date:
    if not isinstance(when, date):
        raise TypeError(f"now= takes a date or datetime, not {when!r}")
    return when


@functools.lru_cache(maxsize=4096)
def checked_name(event: str) -> str:
    """`event`, if it can name an event.

    :raises ValueError: saying what is allowed.
    """
    if not _is_name(event):
        raise ValueError(
            f"{event!r} cannot name an event: use 1 to {LONGEST_NAME} printable characters "
            "without leading or trailing space, not beginning with 'bitop_'"
        )
    return event


def _is_name(event: object) -> bool:
    return (
        isinstance(event, str)
        and 0 < len(event) <= LONGEST_NAME
        and event.isprintable()
        and event == event.strip()
        and not event.startswith("bitop_")
    )


@contextmanager
def contained_faults(doing: str, *arguments: object) -> Iterator[None]:
    """Log what goes wrong inside instead of raising it: analytics never breaks the application."""
    try:
        yield
    except Exception as error:
        unusable = isinstance(error, TypeError | ValueError)
        logger.error(
            f"could not {doing}: %s", *arguments, error, exc_info=None if unusable else error
        )


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


def mark_event(
    event_name: str,
    uuid: object,
    system: Any = None,
    now: datetime | date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> None:
    """Mark that `uuid` did `event_name`: in its day, week and month.

    :param uuid: the id of a user or row (int, str, UUID, ObjectId, tuple for a composite key), or
        a list, set or array of ids, which are marked in one batch.
    :param system: another bitmapist system (its name, a client or a pipeline). Then it is
        bitmapist's own call: direct, with plain ids alone, and raising.
    :param now: when it happened; default is now. Naive: in ``BITMAPIST_TIMEZONE``.
    :param track_hourly: mark the hour too; default ``BITMAPIST_TRACK_HOURLY``.
    :param track_unique: mark the undated bitmap too; default ``BITMAPIST_TRACK_UNIQUE``.
    :param use_pipeline: only for `system`, as in bitmapist.
    :raises TypeError: for an id or a moment of a wrong type, before any I/O.
    :raises ValueError: for an event name or id that is not allowed, before any I/O.
    :raises RuntimeError: before any `FlaskBitmapist.init_app`.
    """
    options = (True, True, now, track_hourly, track_unique)
    _mark(event_name, uuid, options, system, bitmapist.mark_event, use_pipeline)


def unmark_event(
    event_name: str,
    uuid: object,
    system: Any = None,
    now: datetime | date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> None:
    """Take back `mark_event`, with the same arguments.

    As in bitmapist, the bit of the week and month goes with that of the day.
    """
    options = (False, True, now, track_hourly, track_unique)
    _mark(event_name, uuid, options, system, bitmapist.unmark_event, use_pipeline)


def mark_unique(event_name: str, uuid: object, system: Any = None) -> None:
    """Set an undated flag (bitmapist's ``UniqueEvents``), such as ``mark_unique("premium", 42)``.

    Arguments and errors are those of `mark_event`.
    """
    _mark(event_name, uuid, (True, False), system, bitmapist.mark_unique)


def unmark_unique(event_name: str, uuid: object, system: Any = None) -> None:
    """Clear an undated flag. Arguments and errors are those of `mark_event`."""
    _mark(event_name, uuid, (False, False), system, bitmapist.unmark_unique)


def _mark(
    event: str,
    uuid: object,
    options: tuple[Any, ...],
    system: Any,
    original: Callable[..., None],
    *original_options: Any,
) -> None:
    """Mark or unmark each of `uuid`; `options` are the rest of a `Mark`."""
    tracker = current_tracker()
    if not tracker.settings.enabled:
        return
    marks = [Mark(event, id_, *options) for id_ in _each(behind(uuid))]
    if names_own_system(tracker, system):
        tracker.record(marks)
        return
    # All are checked before the first is sent: a wrong one of many marks none.
    for arguments in [_arguments_of_bitmapist(tracker, mark, system) for mark in marks]:
        original(*arguments, *original_options)


def _arguments_of_bitmapist(tracker: Tracker, mark: Mark, system: Any) -> tuple[Any, ...]:
    """What bitmapist's own function takes for `mark`. No I/O."""
    event, offset = checked_name(mark.event), normal_form(mark.id)
    if not isinstance(offset, int):
        raise TypeError(f"system={system!r} takes plain ids alone, not {mark.id!r}")
    offset = tracker.checked_offset(offset)
    if not mark.dated:
        return event, offset, system
    zone = tracker.settings.timezone
    when = tracker.now() if mark.when is None else local(_checked_moment(mark.when), zone)
    return event, offset, system, when, mark.hourly, mark.unique


def get_event_names(system: Any = None, prefix: str = "", batch: int = 10_000) -> list[str]:
    """The names of the events on the server, sorted.

    The registered ones, and those of bitmapist or 0.1.2 that a SCAN finds (repeated after 10 s).

    :param system: another bitmapist system; then it is bitmapist's own call.
    :param prefix: only names that begin with it.
    :param batch: only for `system`: keys asked for in one step of the SCAN.
    """
    tracker = current_tracker()
    if names_own_system(tracker, system):
        return [name for name in tracker.event_names() if name.startswith(prefix)]
    return sorted(bitmapist.get_event_names(system, prefix, batch))


def names_own_system(tracker: Tracker, system: Any) -> bool:
    """Whether bitmapist's `system` argument means the server of `tracker`."""
    return system is None or (
        isinstance(system, str) and system in ("default", tracker.settings.redis_system)
    )


def _each(uuid: object) -> Iterable[object]:
    """The ids that a caller passed: one, or each of a collection (a tuple is one composite id)."""
    if isinstance(uuid, int | str | bytes | tuple | Mapping) or not isinstance(uuid, Iterable):
        return (uuid,)
    return uuid


def mark(
    event_name: str,
    uuid: Any = None,
    system: Any = None,
    now: datetime | date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Mark `event_name` each time that the decorated function, a view for example, has returned.

    Nothing is marked when it raises (``abort()`` included). Works on ``def`` and ``async def``;
    stands below ``@app.route``::

        @app.route("/")
        @mark("index:visited")
        def index(): ...

    :param uuid: who did it. Absent: whoever is logged in (Flask-Login) when the function is
        called, and nothing is marked when nobody is. A callable is called once the function has
        returned, with those of its arguments that it takes; None is nobody. A ``LocalProxy`` is
        what it stands for when the function is called. Anything else is the id itself:
        ``@mark("x", current_user.id)`` reads it when the module is imported, when there is no
        user, so write ``@mark("x")``.
    :raises ValueError: for an event name that is not allowed, when decorating.
    :raises RuntimeError: without `uuid` where the app has no Flask-Login, when called.

    The other arguments are those of `mark_event`. An unusable id and a fault of Redis are logged.
    """
    checked_name(event_name)
    options = (system, now, track_hourly, track_unique, use_pipeline)

    def decorator(function: Callable[_P, _R]) -> Callable[_P, _R]:
        def publish_for(who: Any, *args: Any, **kwargs: Any) -> None:
            with contained_faults("mark %r", event_name):
                if callable(who):
                    who = who(**_arguments_for(who, function, *args, **kwargs))
                if who is not None:
                    mark_event(event_name, who, *options)

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
    """Whom a decorated function will mark, as known when it is called."""
    if isinstance(uuid, LocalProxy):
        with contained_faults("find whom to mark"):
            return behind(uuid) if current_tracker().settings.enabled else None
        return None
    if uuid is not None or not current_tracker().settings.enabled:
        return uuid
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

"""Tracker: how one application's marks are checked, dated and handed to delivery.

Knows no ORM and no view. Everything that marks ends in `Tracker.record` (a direct call: bad input
raises, before any I/O) or `Tracker.publish` (after a commit, a login, a view: nothing raises).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, date, datetime
from threading import Thread
from time import monotonic, time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import ref

from .config import Settings, Switch, unknown_options
from .daily import Daily
from .deadline import within
from .dimensions import checked_choice, choice_of, flag_of
from .faults import contained_faults
from .gate import Check, Gate, Gated
from .id_map import IdMap
from .id_map.promoting import is_visitor
from .ids import MAPPED, PLAIN, UnusableIdError, mapped_kind, normal_form
from .later import Later
from .locks import Lock
from .many import hours_of, is_array, listed_ids
from .marks import Deed, Mark, Settled, SettledMark, checked_name, deed, is_name
from .periods import Grain, local
from .reading.reader import Reader
from .refusals import SERVER_ERRORS
from .registry import Registry, mismatch
from .server import Server

if TYPE_CHECKING:
    from .delivery import Delivery, Stats, Written
    from .maintenance.receipts import Receipt
    from .wishes import Wish

logger = logging.getLogger("flask_bitmapist")

#: Seconds that the thread which erases leaves to the others after each 5,000 keys or so.
_PAUSE = 0.05


class Tracker:
    """Marks the events of one application on its server."""

    #: Takes the marks of all trackers instead of their servers; set while a test records marks.
    recorder: ClassVar[Callable[[Sequence[Settled]], None] | None] = None

    def __init__(
        self,
        settings: Settings,
        switch: Switch,
        server: Server,
        sender: Callable[[], object] = lambda: None,
    ) -> None:
        """:param sender: returns the app, the sender of signals."""
        self.settings = settings
        self._sender = sender
        self.server = server
        self._switch = switch
        self._enabled_option, self._testing_option = switch.lookups
        self._told_of_testing = False
        self._gate = Gate()
        self._seen = Daily()
        self._registry = Registry(str(settings.timezone))
        self._id_map = IdMap()
        #: Answers the reports; it only reads.
        self.reader = Reader(
            server,
            self._registry,
            self._id_map,
            self.now,
            maps_ints=settings.id_map == "always",
            catch_up=self._catch_up,
        )
        #: The largest id that is a plain one.
        self._most = -1 if settings.id_map == "always" else settings.max_id
        self._delivery: Delivery | None = None
        self._delivery_lock = Lock()
        self._promoter = Later(self.promote, "promote a visitor")
        self._eraser = Later(self._erase_all_due, "erase people whose rows were deleted")
        self._hour = _Hour(self, datetime.min, 0.0, 0.0)

    def ignore(self, check: Check) -> None:
        """Consult `check` too before a request marks anything: see `FlaskBitmapist.ignore`."""
        self._gate.add(check)
        self._hour = _Hour(self, datetime.min, 0.0, 0.0)  # that of before knows no gate

    def ignores(self) -> bool:
        """Whether marks made now are left out, as the current request is to be ignored."""
        return self._gate.is_shut()

    @property
    def redis(self) -> Any:
        """The redis client for bulk writes and reports.

        What this process has marked is there, unless the server does not take it now.

        :raises UnfitServerError: if the server cannot hold the data.
        """
        self._catch_up()
        return self.server.patient

    def _catch_up(self) -> None:
        """Deliver what this process has marked and not delivered yet."""
        if self._delivery is not None:
            self._delivery.catch_up()

    @property
    def enabled(self) -> bool:
        """Whether marks are made: ``BITMAPIST_ENABLED``, as it is set now."""
        return self._switch.enabled

    def sends(self) -> bool:
        """Whether marks are made, and leave the process."""
        return self._switch.sends() and Tracker.recorder is None

    def unknown_options(self) -> dict[str, str]:
        """The application's ``BITMAPIST_*`` options that there are not, with the nearest names."""
        return unknown_options({**self._switch.config, **self._switch.overrides})

    def keeps_marks_in_process(self) -> bool:
        """Whether marks may not leave the process, as the application is being tested.

        Logs that once, for anyone who wonders where the marks are.
        """
        if self._switch.tested and not self._told_of_testing:
            self._told_of_testing = True
            logger.info(
                "marks are not sent to the server, because TESTING is set: record_marks() of "
                "flask_bitmapist.testing records them; BITMAPIST_ENABLED = True sends them"
            )
        return self._switch.tested

    def now(self) -> datetime:
        """The moment that marks are dated, as naive local time: the clock's, or `at`'s."""
        return local(_moments.get().get(id(self)), self.settings.timezone)

    @contextmanager
    def at(self, when: datetime | date) -> Iterator[None]:
        """Date the marks made inside the block, those of models and logins too, at `when`.

        :param when: aware, or naive in ``BITMAPIST_TIMEZONE``. For imports, demos and tests.
        :raises TypeError: if it is neither a date nor a datetime.
        :raises ValueError: if it is pandas' NaT.
        """
        if not isinstance(when, date):
            raise TypeError(f"at() takes a date or datetime, not {when!r}")
        local(when, self.settings.timezone)
        token = _moments.set(MappingProxyType({**_moments.get(), id(self): when}))
        try:
            yield
        finally:
            _moments.reset(token)

    def mark(self, event: str, id_: object) -> None:
        """Mark that `id_` did `event` now. It is `mark_event` for whoever has a tracker in hand.

        :param id_: one id, as for a `Mark`.

        Errors are those of `record`.
        """
        hour = self._hour
        # For most marks, all but the id is known from an earlier mark of the same hour.
        if (
            (what := hour.deeds.get(event)) is not None
            and type(id_) is int
            and 0 <= id_ <= self._most
            and hour.begins <= time() < hour.ends
            and hour.history is self._registry.history
            and _moments.get() is _NO_MOMENTS
            and Tracker.recorder is None
            # `Switch.sends`, whose call would take as long again.
            and (told := self._enabled_option("BITMAPIST_ENABLED")) is not False
            and (told is not None or not self._testing_option("TESTING"))
        ) or (
            type(id_) is str
            and (what := hour.mapped.get(event)) is not None
            and type(normal_form(id_)) is str
            and self._is_usual()
            and self._is_now(hour)
        ):
            hour.delivery.add(what, id_)
        else:
            self.record([Mark(event, id_)])
            self._learn(event)

    def _is_usual(self) -> bool:
        """Whether marks are dated now, and go to the server."""
        return _moments.get() is _NO_MOMENTS and self.sends()

    def _is_now(self, hour: _Hour) -> bool:
        return hour.history is self._registry.history and hour.begins <= time() < hour.ends

    def _learn(self, event: str) -> None:
        """Keep for `mark` what all marks of `event` in this hour have in common."""
        kind, settings = self._registry.known_kind(event), self.settings
        if kind not in (PLAIN, MAPPED) or not self._is_usual():
            return
        if kind == MAPPED and settings.id_map == "never":
            return
        hour = self._hour
        if not self._is_now(hour):
            hour = self._hour = _Hour.now(self)
        deeds = hour.deeds if kind == PLAIN else hour.mapped
        start = self._told_hour(hour.start, settings.track_hourly)
        deeds[event] = deed(event, True, start, settings.track_hourly, settings.track_unique, kind)

    def record(self, marks: Iterable[Mark | tuple[Any, ...]]) -> None:
        """Check `marks` and deliver them; a fault of Redis is logged and the marks are spooled.

        :raises TypeError: for something that is not a mark, or not an id.
        :raises ValueError: for an event name, id or moment that is not allowed. Then no mark of the
            batch is recorded.
        """
        if self.enabled:
            settling = _Settling(self)
            settled = [*map(settling, marks)]
            settling.check_kinds()
            self._submit(settled)

    def record_many(self, event: str, ids: Iterable[object], *rest: Any) -> None:
        """As `record`, for marks of one event: many of them take a tenth of the time.

        :param ids: a list, a set or an array.
        :param rest: what follows the id in a `Mark`. ``when`` may be a list or an array of moments,
            one for each id.
        """
        if self.enabled:
            self._submit(self._settled(event, ids, *rest))

    def write_many(
        self,
        event: str,
        ids: Iterable[object],
        *rest: Any,
        only: Grain | None = None,
        is_old_news: bool = False,
        made: float | None = None,
    ) -> Written | None:
        """As `record_many`, but the server has the marks when it returns: nothing is spooled.

        For whoever can do all of it again. A failure may leave some of the bits set.

        :param only: set the bit of this period alone, and not those that a mark sets. For ``hour``
            the mark must be an hourly one.
        :param is_old_news: of a dimension: nobody knows since when people have the value, so no
            month gets it.
        :param made: when `ids` were found out, in seconds since the epoch: whoever has been erased
            since is left out. None: now.
        :returns: whether the server has lost what was written before; None: nothing was sent.
        :raises redis.RedisError: if the server does not take all of them.
        :raises ValueError: also if the event has ids of another kind.
        """
        if not self.enabled:
            return None
        settled = self._settled(event, ids, *rest)
        if is_old_news:
            settled = [(deed(*what._replace(hour=None, only=None)), who) for what, who in settled]
        elif only is not None:
            settled = [(_of_period(what, only), who) for what, who in settled]
        if not settled:
            return None
        if Tracker.recorder is not None or self.keeps_marks_in_process():
            self._submit(settled)
            return None
        kind, choice = settled[0][0].kind, settled[0][0].choice
        name = flag_of(event, choice) if choice else event
        registered = self._registry.kind_of(self.server.quick, name)
        if registered not in (None, kind):
            raise ValueError(mismatch(name, kind, str(registered)))
        return self._deliverer().write(settled, made)

    def _settled(self, event: str, ids: Iterable[object], *rest: Any) -> Sequence[Settled]:
        """The marks of `record_many`. Errors are those of `record`."""
        listed: Any = ids if is_array(ids) or isinstance(ids, list) else list(ids)
        if not len(listed):
            return []
        template = Mark(event, listed[0], *rest)
        who = self._checked_ids(event, listed, template.space)
        when: Any = template.when
        if when is None or isinstance(when, date) or not isinstance(when, Iterable):
            what, _ = _Settling(self)(template)
            return [(what, who)]
        what, _ = _Settling(self)(template._replace(when=None))
        moments: Any = when if is_array(when) else list(when)
        if len(moments) != len(who):
            raise ValueError(f"{len(who)} ids have {len(moments)} moments: give each id its own")
        return [*self._at_each(what, who, moments)]

    def _at_each(self, what: Deed, who: Any, moments: Any) -> Iterator[Settled]:
        """The marks of `who`, each at its moment."""
        whole_days = self._keeps_days(what.hourly)
        for hour, places in hours_of(moments, self._local_hour, whole_days=whole_days):
            of_hour = [who[place] for place in places] if isinstance(who, list) else who[places]
            if what.choice is not None:
                hour = _month_of(hour)
            yield deed(what.event, what.value, hour, *what[3:]), of_hour

    def publish(self, marks: Iterable[Mark | tuple[Any, ...]]) -> None:
        """Deliver marks that come from data: invalid ones are logged and left out."""
        if not self.enabled:
            return
        settling, listed = _Settling(self), [*marks]
        try:
            settled = [*map(settling, listed)]
        except Exception:
            settled = []
            for mark in listed:
                # Without the id, which may be an e-mail address.
                event = mark[0] if isinstance(mark, tuple) and mark else type(mark)
                with contained_faults("mark %r", event):
                    settled.append(settling(mark))
        self._submit(settled)

    def publish_seen(self, event: str, id_: Hashable) -> None:
        """Mark that `id_` was here, unless this process has done so today.

        Once an hour, if ``BITMAPIST_TRACK_HOURLY`` is on.
        """
        if not self.enabled:
            return
        hour = hour_of(self.now())
        period = hour if self.settings.track_hourly else hour.date()
        # Each recording in a test needs the mark again, and so does a server that may have lost it.
        told = (period, Tracker.recorder, self._switch.tested, self._registry.history)
        if not self._seen.is_first(id_, told):
            return
        if self.ignores():
            self._seen.forget(id_)
        else:
            self.publish([Mark(event, id_)])

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what is queued or spooled, promote visitors and erase people who wait for it.

        :param timeout: seconds that it may take, and perhaps one round trip more; None: as long as
            it takes.
        :returns: True when nothing is left.
        """
        # The spool may hold real marks: a test must not deliver them either.
        if Tracker.recorder is not None or self._switch.tested:
            return True
        end = None if timeout is None else monotonic() + timeout

        def left() -> float | None:
            return None if end is None else max(end - monotonic(), 0.0)

        return (
            self._promoter.wait(timeout)
            and self._deliverer().flush(left())
            and self._eraser.wait(left())
        )

    def close(self) -> None:
        """Deliver what is queued, and let go of the thread, the files and the connections.

        For an application that goes before its process does, as in tests; visitors who wait for it
        are promoted, and people erased. What is marked afterwards is delivered at once. A redis
        client that the extension was given is left as it is.
        """
        self._promoter.end()
        if self._delivery is not None:
            self._delivery.end()
        self._eraser.end()
        self.server.close()

    def stats(self) -> Stats:
        """What became of this process's marks, and what waits in the spool."""
        return self._deliverer().stats()

    def erase(
        self,
        user: object,
        *,
        keep: Collection[str] = (),
        dry_run: bool = False,
        watch: Callable[[int], None] = lambda keys: None,
    ) -> Receipt:
        """Erase `user`: every bit in every event and flag, and the entry in the id map.

        Marks that were made before and wait somewhere, such as in the spool of another process,
        are dropped when they come. What is marked afterwards is kept, as that of a new person. It
        takes about ten seconds for each million keys of the server. It can be stopped at any time
        and run again. Where no marks are sent, as in tests, nothing is erased.

        :param user: whatever the user was marked with: an int, str, UUID, ObjectId or tuple.
        :param keep: events and flags whose ids are not those of users.
        :param dry_run: only tell what would be erased.
        :param watch: called now and then with the number of keys that have been looked at since.
        :raises UnusableIdError: for something that identifies nobody.
        :raises ValueError: if nobody has marked an event that is to be kept, or the server has lost
            the kind of an event's ids.
        :raises redis.RedisError: if the server does not answer.
        """
        from .maintenance.erase import erase
        from .maintenance.receipts import Receipt

        if not self.sends():
            normal_form(user)
            return Receipt(None)
        return erase(
            self.server.patient,
            self._registry,
            self._id_map,
            user,
            keep=keep,
            dry_run=dry_run,
            watch=watch,
        )

    def erase_due(
        self, *, dry_run: bool = False, watch: Callable[[int], None] = lambda keys: None
    ) -> Receipt:
        """Erase the people who wait for it, as their rows were deleted.

        They are those of a model with ``__bitmapist_erase_deleted__``. A process erases them soon
        after it has marked the deletion. This is for those of whom none was left to do so. Up to
        500 of them are looked for together. Otherwise it is like `erase`.

        :param dry_run: only tell what would be erased.
        :param watch: as in `erase`.
        :returns: the receipt of all of them; its ``people`` is 0 if nobody waits.
        :raises redis.RedisError: if the server does not answer.
        """
        from .maintenance.due import erase_due
        from .maintenance.receipts import Receipt

        if not self.sends():
            return Receipt(None, people=0)
        return erase_due(
            self.server.patient, self._registry, self._id_map, dry_run=dry_run, watch=watch
        )

    def _erase_all_due(self) -> None:
        """In a thread beside those that serve requests."""
        while self.erase_due(watch=lambda keys: self._eraser.pause(_PAUSE)).people:
            pass

    def promote(
        self, visitor: str, user: object, since: date | None = None, asked: float | None = None
    ) -> bool:
        """Make `visitor` the user `user`: what they did, and will do, is what the user did.

        It waits for the server. In a request use `visitors.promote_visitor`, which does not. It can
        be stopped at any time and run again. Where no marks are sent, as in tests, nothing is done.

        :param visitor: the id of a visitor, as `visitors.visitor_id` gives it.
        :param user: whatever the user is marked with.
        :param since: the first day on which the visitor may have done something; default:
            ``BITMAPIST_VISITOR_AGE`` ago.
        :param asked: when it turned out that they are the user, in seconds since the epoch; None:
            now.
        :returns: whether the visitor is that user now; False: they have become another one before,
            or the user has been erased since it was `asked`, and the visitor with them.
        :raises UnusableIdError: for something that identifies nobody.
        :raises ValueError: if one is no visitor, or the other is one, or ids are not all mapped.
        :raises redis.RedisError: if the server does not answer.
        """
        who = str(normal_form(user))
        if not is_visitor(visitor) or is_visitor(who):
            wrong = f"{who!r} is a visitor" if is_visitor(visitor) else f"{visitor!r} is no visitor"
            raise ValueError(f"{wrong}: promote() makes a visitor a user")
        if self.settings.id_map != "always":
            raise ValueError(
                f"promote() needs BITMAPIST_ID_MAP = 'always', not {self.settings.id_map!r}"
            )
        if not self.sends():
            return False
        from .maintenance.promote import promote

        # By the machine's clock: `at` dates marks, and the visitor's were made before now.
        today = local(None, self.settings.timezone)
        first = since or (today - self.settings.visitor_age).date()
        return promote(
            self.server.patient,
            self._registry,
            self._id_map,
            visitor,
            who,
            first,
            today,
            time() if asked is None else asked,
        )

    def promote_later(self, visitor: str, user: object, since: date) -> None:
        """As `promote`, from a thread: this neither waits nor raises."""
        if self.sends():
            self._promoter.submit(visitor, user, since, time())

    def reindex(self) -> list[str]:
        """Register the events and flags that others, such as bitmapist itself, have marked.

        Their names need no SCAN afterwards. Reports learn the first month of each event again, in
        case earlier marks have come in meanwhile. Maps of ids that an earlier build has kept are
        taken over.

        :returns: the names that were not registered before, sorted.
        :raises redis.RedisError: if the server does not answer, or a map is damaged.
        """
        client = self.server.patient
        registered = self._registry.reindex(client, local(None, self.settings.timezone))
        kinds = self._registry.known(client, scanned=False).kinds.values()
        for kind in sorted({*kinds} - {PLAIN}):
            self._id_map.complete(client, kind)
        return registered

    def forget_emptied(self) -> list[str]:
        """Forget the events and flags that no longer have a bitmap, and the kind of their ids.

        For example after ``bitmapist.delete_all_events()``, which knows nothing of the registry.
        Afterwards ids of another kind can be marked under these names.

        :returns: the names, sorted.
        :raises redis.RedisError: if the server does not answer.
        """
        return self._registry.forget_emptied(self.server.patient)

    def _deliverer(self) -> Delivery:
        # Made when first needed: a process that only reads loads neither the spool nor sqlite3.
        if self._delivery is not None:
            return self._delivery
        with self._delivery_lock:
            if self._delivery is None:
                made = self._new_delivery()
                # A signal handler may have been faster, in this thread.
                self._delivery = self._delivery or made
            return self._delivery

    def _new_delivery(self) -> Delivery:
        from .delivery import Delivery, Notices, People, Spool, Writer, server_of

        settings = self.settings
        spool = None
        if settings.spool is not None:
            server = server_of(self.server.client)
            spool = Spool(settings.spool, server, limit=settings.spool_size)
        writer = Writer(
            self.server,
            registry=self._registry,
            id_map=self._id_map,
            clock=_clock_of(self),
            zone=settings.timezone,
            max_id=settings.max_id,
            dense_limit=settings.dense_limit,
            ttl=settings.ttl,
            values=settings.dimension_values,
            people=People(_make_room_of(self), _erasing_of(self)),
        )
        return Delivery(
            self.server,
            writer,
            spool,
            Notices(self._sender),
            self,
            background=settings.delivery == "background",
        )

    def _submit(self, settled: Sequence[Settled]) -> None:
        if self.ignores():  # what is taken back stays no longer than it must
            settled = [mark for mark in map(_without_news, settled) if mark is not None]
        if not settled:
            return
        if Tracker.recorder is not None:
            Tracker.recorder(settled)
        elif not self.keeps_marks_in_process():
            try:
                delivery = self._deliverer()
            except ImportError:  # a signal handler came between, while its thread was importing it
                Thread(target=self._submit_later, args=(settled,)).start()
            else:
                delivery.submit(settled)

    def _submit_later(self, settled: Sequence[Settled]) -> None:
        """Deliver `settled` from another thread: it waits for an import that is under way."""
        with contained_faults("deliver marks"):
            self._deliverer().submit(settled)

    def _done(self, mark: Mark, kind: str, now: datetime) -> tuple[Any, ...]:
        """All of the deed of `mark` but its event; `now` is the hour of marks without a moment."""
        _, _, value, dated, when, hourly, unique, _, exact, *_ = mark
        if when is not None:
            now = self._local_hour(when)
        if hourly is None:
            hourly = self.settings.track_hourly
        return (
            value,
            self._told_hour(now, hourly) if dated else None,
            hourly,
            self.settings.track_unique if unique is None else unique,
            kind,
            exact,
        )

    def _choice(self, dimension: str, mark: Mark, kind: str, now: datetime) -> Deed:
        """The deed of a `mark` that gives a value in `dimension`.

        It has no more of the moment than the month, so that many share it.
        """
        choice = checked_choice(dimension, choice_of(mark.choice))
        if choice:
            self._check_kind(flag_of(dimension, choice), kind)
        month = _month_of(now if mark.when is None else self._local_hour(mark.when))
        only: Grain | None = "month" if mark.dated else None
        return deed(dimension, bool(choice), month, False, True, kind, True, only, choice)

    def _told_hour(self, hour: datetime, hourly: bool) -> datetime:
        """What of `hour` a mark carries: those of a day without hourly bitmaps are one deed."""
        return hour.replace(hour=0) if hour.hour and self._keeps_days(hourly) else hour

    @staticmethod
    def _keeps_days(hourly: bool) -> bool:
        return not hourly and Tracker.recorder is None  # a test may ask for the hour

    def _local_hour(self, moment: object) -> datetime:
        return hour_of(local(checked_moment(moment), self.settings.timezone))

    def _checked_ids(self, event: str, ids: Any, space: str) -> Any:
        """Those of `ids` that `_checked_id` gives, in a list, or in an array of plain ones.

        :raises ValueError: if some are plain and some are mapped.
        """
        is_mapped = self.settings.id_map == "always"
        if is_array(ids):
            ids = listed_ids(ids)
            if not isinstance(ids, list) and not is_mapped:
                self.checked_offset(int(ids.max()))
                return ids
        normal = [normal_form(id_) for id_ in (ids if isinstance(ids, list) else ids.tolist())]
        if {*map(type, normal)} == {int} and not is_mapped:
            self.checked_offset(cast(int, max(normal)))
            return normal
        checked = [self._checked_id(id_, space) for id_ in normal]
        if len({*map(type, checked)}) > 1:
            kinds = PLAIN, mapped_kind(space)
            first, other = kinds if isinstance(checked[0], int) else reversed(kinds)
            raise ValueError(mismatch(event, other, first))
        return checked

    def _check_kind(self, event: str, kind: str) -> None:
        """:raises ValueError: if the ids of `event` are of another kind than `kind`."""
        known = self._registry.known_kind(event)
        if known is None or known == kind:
            return
        # What this process knows may be out of date: the server may have lost it. If the server
        # cannot be asked now, delivery will ask.
        with suppress(*SERVER_ERRORS), within(self.settings.timeout):
            registered = self._registry.kind_of(self.server.quick, event)
            if registered is not None and registered != kind:
                raise ValueError(mismatch(event, kind, registered))

    def _checked_id(self, id_: int | str, space: str) -> int | str:
        if self.settings.id_map == "always":
            return str(id_)
        if isinstance(id_, str):
            if self.settings.id_map == "never":
                told = (
                    "is no number, and BITMAPIST_ID_MAP is 'never': set it to 'auto' to give such "
                    f"ids ({mapped_kind(space)}) offsets of their own"
                )
                raise UnusableIdError(f"the id {id_!r} {told}", without_id=f"a text id {told}")
            return id_
        return self.checked_offset(id_)

    def check_id(self, id_: int | str, space: str = "") -> None:
        """:raises ValueError: if `id_`, in its normal form, cannot be marked here."""
        self._checked_id(id_, space)

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


class _Settling:
    """Makes marks ready to be delivered; what several have in common is checked once."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._now = hour_of(tracker.now())
        self._most = tracker._most
        #: By the type of the id and what follows it in a mark: the deeds of each event.
        self._alike: dict[Any, _Alike] = {}
        #: Those of plain ids that nothing follows, once there was one.
        self._usual: _Alike | None = None

    def __call__(self, given: Mark | tuple[Any, ...]) -> SettledMark:
        """:raises ValueError: for a name, an id or a moment that is not allowed."""
        rest: tuple[Any, ...]
        if type(given) is tuple and len(given) == 2:  # most are
            (event, id_), rest = given, ()
            if self._usual is not None and type(id_) is int and 0 <= id_ <= self._most:
                return self._usual[event], id_
        else:
            mark = given if type(given) is Mark else Mark(*given)
            event, id_, rest = mark[0], mark[1], mark[2:]
        if type(id_) is not int or not 0 <= id_ <= self._most:  # most need no more checks
            id_ = self._tracker._checked_id(normal_form(id_), _whole(given).space)
        options = (type(id_), rest)
        deeds = self._alike.get(options)
        if deeds is None:
            mark = _whole(given)
            deeds = self._alike[options] = _Alike(self._tracker, mark, type(id_), self._now)
            if not rest and type(id_) is int:
                self._usual = deeds
        return deeds[event], id_

    def check_kinds(self) -> None:
        """:raises ValueError: if some ids of an event are of another kind than others."""
        kinds: dict[str, str] = {}
        if len({deeds.kind for deeds in self._alike.values()}) > 1:
            for deeds in self._alike.values():
                for event in deeds:
                    kind = kinds.setdefault(event, deeds.kind)
                    if deeds.kind != kind:
                        raise ValueError(mismatch(event, deeds.kind, kind))


class _Alike(dict[str, Deed]):
    """Event -> the deed of marks that have all but it and the id in common."""

    def __init__(self, tracker: Tracker, mark: Mark, id_type: type, now: datetime) -> None:
        self._tracker = tracker
        self._mark = mark
        self.kind = PLAIN if id_type is int else mapped_kind(mark.space)
        is_event = mark.choice is None and mark.kept is None
        self._now = now
        self._rest = tracker._done(mark, self.kind, now) if is_event else ()
        self._known = tracker._registry.history.kinds

    def __missing__(self, event: str) -> Deed:
        known, mark = self._known.get(event), self._mark
        if known is None and not is_name(event):  # it takes less time than to ask `checked_name`
            checked_name(event)
        if self._rest:
            if known is not None and known != self.kind:
                self._tracker._check_kind(event, self.kind)
            # Of a name that is new, `deed` has none.
            make = Deed if known is None else deed
            what = make(event, *self._rest)
        elif mark.kept is not None:
            what = _life(event, mark.value, self.kind, mark.kept)
        else:
            what = self._tracker._choice(event, mark, self.kind, self._now)
        self[event] = what
        return what


def _whole(given: Mark | tuple[Any, ...]) -> Mark:
    return given if type(given) is Mark else Mark(*given)


class _Hour:
    """What holds for the marks of one hour."""

    def __init__(self, tracker: Tracker, start: datetime, begins: float, ends: float) -> None:
        """
        :param start: the hour, naive in the application's calendar.
        :param begins: when it begins, in seconds since the epoch.
        :param ends: when it ends.
        """
        self.start, self.begins, self.ends = start, begins, ends
        #: What is known of the server; it does not hold for another history.
        self.history = tracker._registry.history
        self.delivery: Any = tracker._delivery
        if tracker._gate.has_checks:
            self.delivery = Gated(self.delivery, tracker._gate)
        #: What was done, by event: those with plain ids, and those with the users' mapped ones.
        self.deeds: dict[str, Deed] = {}
        self.mapped: dict[str, Deed] = {}

    @classmethod
    def now(cls, tracker: Tracker) -> _Hour:
        """The present hour of the calendar of `tracker`."""
        moment = time()
        local_time = datetime.fromtimestamp(moment, tracker.settings.timezone)
        start = hour_of(local_time.replace(tzinfo=None))
        begins = moment - (local_time.replace(tzinfo=None) - start).total_seconds()
        return cls(tracker, start, begins, begins + 3600)


def _of_period(what: Deed, grain: Grain) -> Deed:
    """`what`, of the bitmap of this one period."""
    if what.choice is not None:  # whoever has none then may have no offset yet
        return deed(*what._replace(value=True, only=grain, unique=False))
    return deed(*what._replace(only=grain))


def _month_of(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0)


def _without_news(mark: Settled) -> Settled | None:
    """What is left of `mark` if nothing new is to be marked: what no longer holds is taken back."""
    what, who = mark
    if not what.value or what.kept is not None:
        return mark
    if what.choice is None:
        return None
    return deed(what.event, False, *what[2:8], ""), who


def _life(event: str, is_new: bool, kind: str, kept: tuple[str, ...]) -> Deed:
    """The deed of a person who has come or gone: see `Mark.kept`."""
    # By the machine's clock, whatever `at` says: other marks are compared with it.
    moment = datetime.now(UTC).replace(tzinfo=None)
    return Deed(event, is_new, moment, False, False, kind, kept=kept)


# One variable for all trackers: a ContextVar per tracker would never be garbage-collected.
_NO_MOMENTS: Mapping[int, datetime | date] = MappingProxyType({})
_moments: ContextVar[Mapping[int, datetime | date]] = ContextVar(
    "bitmapist_moments", default=_NO_MOMENTS
)


def _clock_of(tracker: Tracker) -> Callable[[], datetime]:
    """The clock of the calendar in which `tracker` marks, which does not keep it alive."""
    reference, zone = ref(tracker), tracker.settings.timezone

    def clock() -> datetime:
        tracker, now = reference(), local(None, zone)
        # The server's first day may be later than the moment that `at` gives.
        return now if tracker is None else max(tracker.now(), now)

    return clock


def _erasing_of(tracker: Tracker) -> Callable[[], None]:
    """What has `tracker` erase the people who wait for it, and does not keep it alive."""
    reference = ref(tracker)

    def erase_later() -> None:
        tracker = reference()
        if tracker is not None:
            tracker._eraser.submit()

    return erase_later


def _make_room_of(tracker: Tracker) -> Callable[[Any, Sequence[Wish], datetime], None]:
    """What clears the way for somebody new on the server of `tracker`, and does not keep it alive.

    As `delivery.people.MakeRoom`.
    """
    registry, id_map, zone = tracker._registry, tracker._id_map, tracker.settings.timezone

    def make_room(client: Any, waiting: Sequence[Wish], moment: datetime) -> None:
        from .maintenance.due import make_room

        make_room(client, registry, id_map, waiting, local(moment, zone), local(None, zone))

    return make_room


def hour_of(moment: datetime) -> datetime:
    """The hour in which `moment` lies."""
    return moment.replace(minute=0, second=0, microsecond=0)


def checked_moment(when: object) -> datetime | date:
    if not isinstance(when, date):
        raise TypeError(f"now= takes a date or datetime, not {when!r}")
    return when

"""FlaskBitmapist: reads ``app.config``, makes a `Tracker` per app, plugs in login and dashboard."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import date
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask
from werkzeug.local import LocalProxy

from .annotations import Annotation, annotation_of
from .boards import Board, Chart, board_of
from .cli import commands
from .config import Settings, Switch
from .current import TRACKER, current_tracker, note_app
from .gate import checked
from .server import Server
from .systems import servers
from .tracker import Tracker

if TYPE_CHECKING:
    from .digest import Digest

_Check = TypeVar("_Check", bound=Callable[[], object])
_Link = TypeVar("_Link", bound=Callable[[Any], object])
_Finder = TypeVar("_Finder", bound=Callable[[str], object])


#: The key, in an app's ``extensions``, of the extension objects that have set it up, latest first.
#: A later one takes over, but an access check registered with an earlier one still holds.
_EXTENSIONS = "bitmapist.extensions"


class FlaskBitmapist:
    """The extension: ``FlaskBitmapist(app)``, or `init_app` in an application factory.

    One object serves any number of apps, each with its own server.
    """

    def __init__(
        self,
        app: Flask | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        redis_client: Any = None,
        read_client: Any = None,
    ) -> None:
        """See `init_app`, which is called if `app` is given."""
        #: Decides whether the current request may see the dashboard; None: see `dashboard_access`.
        self.access_check: Callable[[], object] | None = None
        #: Decides whether the current request may save something; None: see `may_save`.
        self.save_check: Callable[[], object] | None = None
        #: The dashboard's name and link for a user; None: see `user_link`.
        self.link: Callable[[Any], object] | None = None
        #: The boards declared in code, by name, in their order.
        self.boards: dict[str, Board] = {}
        #: Whom the dashboard's users mean by a text; None: see `find_user`.
        self.finder: Callable[[str], object] | None = None
        #: The annotations declared in code.
        self.annotations: set[Annotation] = set()
        self._ignored: list[Callable[[], object]] = []
        #: The trackers that its checks hold for.
        self._trackers: weakref.WeakSet[Tracker] = weakref.WeakSet()
        if app is not None:
            self.init_app(app, config, redis_client=redis_client, read_client=read_client)

    def init_app(
        self,
        app: Flask,
        config: Mapping[str, Any] | None = None,
        *,
        redis_client: Any = None,
        read_client: Any = None,
    ) -> None:
        """Set up `app`; no connection is made before the first mark. Harmless when repeated.

        :param config: options that override those of ``app.config``.
        :param redis_client: a client to use instead of ``BITMAPIST_REDIS_URL``: Redis,
            RedisCluster, a Sentinel master, or anything else with redis-py's interface. Marking
            uses its settings, but with ``BITMAPIST_TIMEOUT`` and without retries. A client whose
            class is not one of redis-py's is used as it is: give it a ``socket_timeout`` and no
            retries.
        :raises ValueError: if an option is wrong: the message names it, its value and what is
            allowed. If the app has another blueprint called ``bitmapist``.
        """
        if config is not None and not isinstance(config, Mapping):
            raise ValueError(f"config must be a mapping of options or None, not {config!r}")
        overrides = dict(config or {})
        settings = Settings.from_config({**app.config, **overrides}, app.instance_path)
        server = Server.of(settings, app.instance_path, redis_client, read_client)
        tracker = Tracker(settings, Switch(app.config, overrides), server, weakref.ref(app))
        replaced = app.extensions.get(TRACKER)
        if replaced is not None:
            replaced.flush()
        app.extensions["bitmapist"] = self
        _add_first(self, app.extensions.setdefault(_EXTENSIONS, []))
        app.extensions[TRACKER] = tracker
        for extension in app.extensions[_EXTENSIONS]:
            extension._guard(tracker)
        note_app(app)
        _register_server(settings.redis_system)
        told_of = settings.track_login or settings.track_seen or settings.promote_visitors
        if told_of and find_spec("flask_login"):
            from .login import track

            track(app)
        if settings.visitors:
            from . import visitors

            visitors.track(app)
        app.cli.add_command(commands)
        if not settings.disable_blueprint:
            _add_dashboard(app, settings.url_prefix)

    def tracker_of(self, app: Flask) -> Tracker:
        """The tracker of `app`, whatever the current context is."""
        return cast(Tracker, app.extensions[TRACKER])

    @property
    def tracker(self) -> Tracker:
        """The current app's tracker; outside a context, the tracker of the only app in the process.

        :raises RuntimeError: before any `init_app`; outside a context if there are several apps.
        """
        return current_tracker()

    def dashboard_access(self, check: _Check) -> _Check:
        """Register a function that decides who may see the dashboard: no arguments -> bool.

        It is called on each request to the dashboard, and only ``True`` grants access. Without a
        check, the dashboard is open only while ``app.debug`` or ``app.testing`` is set; otherwise
        everybody gets a 403. As a decorator::

            @bitmapist.dashboard_access
            def only_staff():
                return current_user.is_authenticated and current_user.is_staff
        """
        self.access_check = check
        return check

    def may_save(self, check: _Check) -> _Check:
        """Register a function that decides who may save from the dashboard: no arguments -> bool.

        It is asked when a page has something to save, of those whom `dashboard_access` lets in, and
        only ``True`` grants it. Without a check nobody may: the dashboard changes nothing. The
        application needs a ``SECRET_KEY``, which signs the forms. As a decorator::

            @bitmapist.may_save
            def analysts():
                return current_user.is_authenticated and current_user.is_analyst
        """
        self.save_check = check
        return check

    def user_link(self, link: _Link) -> _Link:
        """Register what the dashboard calls a user: a function id -> label, or (label, URL).

        The id is as the application marked it: an int, or the text of a UUID, ObjectId or tuple. To
        show the id itself, return None. It is called for each user shown, at most 50 a page. As a
        decorator::

            @bitmapist.user_link
            def account(user_id):
                user = db.session.get(User, user_id)
                return user and (user.name, url_for("account", id=user_id))
        """
        self.link = link
        return link

    def board(self, name: str, charts: Iterable[Chart]) -> Board:
        """Declare a board: charts that the dashboard shows on one page, and a digest sends.

        ::

            bitmapist.board(
                "Weekly",
                [
                    chart("Sign-ups", "trend", event="user:created", by="week"),
                    chart("Who stays", "retention", cohort="user:created", returned="user:seen"),
                ],
            )

        :param name: its name in the navigation: 1 to 80 printable characters.
        :param charts: 1 to 12 charts, made with `flask_bitmapist.chart`.
        :raises ValueError: if there is a board of that name already, or something else among the
            charts.
        """
        if name in self.boards:
            raise ValueError(f"there are two boards called {name!r}: give one another name")
        self.boards[name] = board_of(name, charts)
        return self.boards[name]

    def digest(self, name: str, *, url: str | None = None) -> Digest:
        """A board of the current app as a mail: `flask_bitmapist.digest.digest`."""
        from .digest import digest

        return digest(name, url=url)

    def find_user(self, find: _Finder) -> _Finder:
        """Register how the dashboard finds people: a function text -> id, several ids, or None.

        The text is what somebody has typed into the field *Find a person*, at most 512 characters.
        A list, a set or a query's rows are several ids, of which 50 are shown; a tuple is one
        composite id. Ids are found without it. As a decorator::

            @bitmapist.find_user
            def by_email(text):
                users = User.query.filter(User.email.startswith(text, autoescape=True))
                return [user.id for user in users.limit(50)]
        """
        self.finder = find
        return find

    def annotation(self, day: date, text: str) -> Annotation:
        """Declare what happened on a day, such as a release: each time axis of a chart shows it.

        ::

            bitmapist.annotation(date(2026, 11, 1), "v2.0")

        ``flask bitmapist annotate`` does the same for what code does not know.

        :param day: in the application's calendar.
        :param text: 1 to 80 printable characters.
        :raises ValueError: if the day is no date, or the text is too long.
        """
        declared = annotation_of(day, text)
        self.annotations.add(declared)
        return declared

    def ignore(self, check: _Check) -> _Check:
        """Register a function that decides whose requests mark nothing: no arguments -> bool.

        It is called inside a request, at most once, before the first mark: of a view, a login, a
        visit or a model that is committed. If it returns True, or fails, the request marks nothing;
        what it takes back is taken back. Of several functions, one is enough. Marks made outside a
        request never ask. As a decorator::

            @bitmapist.ignore
            def staff():
                return current_user.is_authenticated and current_user.is_staff

        :raises TypeError: if it cannot be called, or is async.
        """
        self._ignored.append(checked(check))
        for tracker in self._trackers:
            tracker.ignore(check)
        return check

    def _guard(self, tracker: Tracker) -> None:
        """Have the checks, those to come too, hold for `tracker`."""
        self._trackers.add(tracker)
        for check in self._ignored:
            tracker.ignore(check)

    @staticmethod
    def access_check_of(app: Flask) -> Callable[[], object] | None:
        """The access check of `app`; None if none of its extension objects has one."""
        checks = (extension.access_check for extension in app.extensions[_EXTENSIONS])
        return next(filter(None, checks), None)

    @staticmethod
    def save_check_of(app: Flask) -> Callable[[], object] | None:
        """The check of `may_save` of `app`; None if none of its extension objects has one."""
        checks = (extension.save_check for extension in app.extensions[_EXTENSIONS])
        return next(filter(None, checks), None)

    @staticmethod
    def user_link_of(app: Flask) -> Callable[[Any], object] | None:
        """The `user_link` of `app`; None if none of its extension objects has one."""
        links = (extension.link for extension in app.extensions[_EXTENSIONS])
        return next(filter(None, links), None)

    @staticmethod
    def boards_of(app: Flask) -> dict[str, Board]:
        """The boards that code has declared for `app`, by name."""
        boards: dict[str, Board] = {}
        for extension in reversed(app.extensions[_EXTENSIONS]):
            boards |= extension.boards
        return boards

    @staticmethod
    def finder_of(app: Flask) -> Callable[[str], object] | None:
        """The `find_user` of `app`; None if none of its extension objects has one."""
        finders = (extension.finder for extension in app.extensions[_EXTENSIONS])
        return next(filter(None, finders), None)

    @staticmethod
    def annotations_of(app: Flask) -> list[Annotation]:
        """The annotations that code has declared for `app`, in order."""
        extensions = app.extensions[_EXTENSIONS]
        return sorted({one for extension in extensions for one in extension.annotations})

    @property
    def redis_url(self) -> str:
        """``BITMAPIST_REDIS_URL`` of the current app, password included, as in 0.1.2."""
        return self.tracker.settings.redis_url

    @property
    def SYSTEMS(self) -> MutableMapping[str, Any]:  # noqa: N802
        """The servers by name, as in 0.1.2: bitmapist's table where it is installed.

        ``extension.SYSTEMS["stats"] = redis.Redis(...)`` adds one, for ``system="stats"``.
        """
        return servers()

    @property
    def TRACK_HOURLY(self) -> bool:  # noqa: N802
        """``BITMAPIST_TRACK_HOURLY`` of the current app, as in 0.1.2."""
        return self.tracker.settings.track_hourly


def _add_first(extension: FlaskBitmapist, extensions: list[FlaskBitmapist]) -> None:
    if extension in extensions:
        extensions.remove(extension)
    extensions.insert(0, extension)


def _add_dashboard(app: Flask, url_prefix: str) -> None:
    from .dashboard import blueprint

    ours = blueprint()
    there = app.blueprints.get(ours.name)
    if there is None:
        app.register_blueprint(ours, url_prefix=url_prefix)
    elif there.import_name != ours.import_name:
        raise ValueError(
            f"the app has a blueprint of its own called {ours.name!r}, like the dashboard's: give "
            "it another name, or set DISABLE_BLUEPRINT to do without the dashboard"
        )


def _register_server(system: str) -> None:
    """Make bitmapist's own classes and operators follow the current app under these names too."""
    client: Any = LocalProxy(lambda: current_tracker().redis)
    table = servers()
    for name in ("default", system):
        table[name] = client

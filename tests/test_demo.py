"""The demo: every click marks what it says, and its played year is true to its rows and kept."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args
from urllib.request import urlopen

import pytest
import warm
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from servers import eventually, free_port
from sqlalchemy import func, select

from flask_bitmapist import (
    DayEvents,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    analytics,
    get_event_names,
)
from flask_bitmapist.demo.__main__ import main
from flask_bitmapist.demo.app import create_app
from flask_bitmapist.demo.history import ensure_played, play
from flask_bitmapist.demo.models import Like, Post, User, db
from flask_bitmapist.maintenance.backfill import Backfill, Backfilled
from flask_bitmapist.questions.base import AsOf

PASSWORD = "correct horse"
UNTIL = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)


@contextmanager
def started(folder: Path, **options: str) -> Iterator[Flask]:
    app = create_app(folder, {"TESTING": True, "BITMAPIST_ENABLED": True, **options})
    try:
        yield app
    finally:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(tmp_path: Path, redis_url: str) -> Iterator[Flask]:
    """On the run's server: to start one of its own takes longer than most of these tests."""
    with started(tmp_path / "demo", BITMAPIST_REDIS_URL=redis_url) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """A quarter of a year of 600 people, up to `UNTIL`."""
    with started(tmp_path_factory.mktemp("played")) as app:
        play(app, days=90, users=600, until=UNTIL)
        yield app


def today(app: Flask, event: str) -> set[int | str]:
    with app.app_context():
        return set(DayEvents(event))


def sign_up(client: FlaskClient, name: str = "Ada Byron") -> int:
    client.post("/signup", data={"name": name, "password": PASSWORD})
    with client.application.app_context():
        user_id = db.session.scalar(select(User.id).where(User.name == name))
    assert user_id is not None
    return user_id


def write(client: FlaskClient, title: str = "Walden, page 9", body: str = "Slowly.") -> str:
    return client.post("/write", data={"title": title, "body": body}).location


# What a click marks


def test_what_is_missing_is_told_before_the_year_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyroaring", None)
    monkeypatch.delitem(sys.modules, "flask_bitmapist.reading.packed", raising=False)
    instance = tmp_path / "demo"
    done = CliRunner().invoke(main, ["--port", f"{free_port()}", "--instance", f"{instance}"])
    assert done.exit_code == 1
    assert 'pip install "flask-bitmapist[demo]"' in done.output
    assert not instance.exists()


def test_signing_up_marks_the_new_account_and_its_login(app: Flask, client: FlaskClient) -> None:
    user_id = sign_up(client)
    assert today(app, "user:created") == today(app, "user:logged_in") == {user_id}


def test_logging_out_and_in_again_marks_both(app: Flask, client: FlaskClient) -> None:
    user_id = sign_up(client)
    client.post("/logout")
    assert today(app, "user:logged_out") == {user_id}
    answer = client.post(
        "/login", data={"name": "Ada Byron", "password": PASSWORD}, follow_redirects=True
    )
    assert "You are Ada Byron now." in answer.text
    assert "user:logged_in" in answer.text


def test_a_visitor_is_seen_once_a_day_and_the_front_page_shows_it(
    app: Flask, client: FlaskClient
) -> None:
    user_id = sign_up(client)
    assert today(app, "user:seen") == {user_id}
    assert "user:seen" in client.get("/").text


def test_most_who_come_back_need_not_log_in(played: Flask) -> None:
    with played.app_context():
        seen, logged_in = (
            set(MonthEvents("user:seen", 2026, 2)),
            MonthEvents("user:logged_in", 2026, 2),
        )
        assert set(logged_in) < seen
        day = date(2026, 2, 20)
        newcomers = set(DayEvents.from_date("user:created", day))
        back = set(DayEvents.from_date("user:seen", day)) - newcomers
        assert len(back & set(DayEvents.from_date("user:logged_in", day))) < 0.6 * len(back)


def test_a_wrong_password_logs_nobody_in(app: Flask, client: FlaskClient) -> None:
    sign_up(client)
    client.post("/logout")
    answer = client.post("/login", data={"name": "Ada Byron", "password": "guessed it"})
    assert "No account has this name and this password." in answer.text
    assert client.get("/account").status_code == 302


def test_a_post_marks_its_author_and_a_like_its_reader(app: Flask, client: FlaskClient) -> None:
    sign_up(client, "Somebody Else")  # so that ids of users and of posts differ
    author = sign_up(client)
    post = write(client)
    reader = sign_up(client, "Mary Shelley")
    client.get(post)
    answer = client.post(f"{post}/like", follow_redirects=True)
    assert "post:liked" in answer.text
    assert "1 like" in answer.text
    assert today(app, "post:created") == {author}
    assert today(app, "post:read") == today(app, "post:liked") == {reader}


def test_a_second_like_changes_nothing(app: Flask, client: FlaskClient) -> None:
    sign_up(client)
    post = write(client)
    client.post(f"{post}/like")
    assert client.post(f"{post}/like").status_code == 302
    assert "1 like" in client.get(post).text


def test_a_stranger_reads_and_marks_nothing(app: Flask, client: FlaskClient) -> None:
    sign_up(client)
    post = write(client)
    stranger = app.test_client()
    assert stranger.get(post).status_code == 200
    assert stranger.post(f"{post}/like").location == "/login"
    assert today(app, "post:read") == today(app, "post:liked") == set()


def test_going_premium_marks_the_upgrade_and_sets_the_flag(app: Flask, client: FlaskClient) -> None:
    user_id = sign_up(client)
    client.post("/account/upgrade")
    assert today(app, "user:upgraded") == {user_id}
    with app.app_context():
        assert set(UniqueEvents("user:premium")) == {user_id}


def test_closing_the_account_marks_it_and_takes_its_flag_and_posts_along(
    app: Flask, client: FlaskClient
) -> None:
    user_id = sign_up(client)
    post = write(client)
    client.post(f"{post}/like")
    client.post("/account/upgrade")
    client.post("/account/close")
    assert today(app, "user:deleted") == today(app, "user:logged_out") == {user_id}
    assert client.get(post).status_code == 404
    assert client.get("/account").status_code == 302
    with app.app_context():
        assert set(UniqueEvents("user:premium")) == set()
        assert db.session.scalar(select(func.count()).select_from(Like)) == 0


def test_the_id_of_a_closed_account_is_never_given_away_again(client: FlaskClient) -> None:
    closed = sign_up(client)
    client.post("/account/close")
    assert sign_up(client, "Mary Shelley") > closed


def test_the_front_page_shows_the_visitors_own_bits(client: FlaskClient) -> None:
    assert "A stranger marks nothing" in client.get("/").text
    sign_up(client)
    page = client.get("/").text
    assert page.count('class="bit set"') == 3  # created, logged in, seen
    client.get(write(client))
    assert client.get("/").text.count('class="bit set"') == 5


def test_one_click_makes_a_visitor_a_random_reader(played: Flask) -> None:
    client = played.test_client()
    answer = client.post("/login/random", follow_redirects=True)
    assert "user:logged_in" in answer.text
    assert client.get("/account").status_code == 200


def test_without_readers_the_random_reader_is_a_sign_up(client: FlaskClient) -> None:
    assert client.post("/login/random").location == "/signup"


# What the pages let in, and let out


@pytest.mark.parametrize(
    ("path", "form", "complaint"),
    [
        ("/signup", {"name": " ", "password": PASSWORD}, "The name is missing."),
        ("/signup", {"name": "x" * 41, "password": PASSWORD}, "longer than 40"),
        ("/signup", {"name": "Mary", "password": "short"}, "at least 8 characters"),
        ("/signup", {"name": "Ada Byron", "password": PASSWORD}, "called Ada Byron already"),
        ("/write", {"title": "", "body": "Text."}, "The title is missing."),
        ("/write", {"title": "Title", "body": "x" * 5001}, "longer than 5000"),
    ],
)
def test_a_form_says_what_is_wrong(
    client: FlaskClient, path: str, form: dict[str, str], complaint: str
) -> None:
    sign_up(client)
    answer = client.post(path, data=form)
    assert answer.status_code == 200
    assert complaint in answer.text


def test_what_people_write_is_escaped(client: FlaskClient) -> None:
    sign_up(client, "<b>Ada</b>")
    post = write(client, "<i>Emma</i>", "<script>alert(1)</script>")
    for page in (client.get("/").text, client.get(post).text):
        assert "<b>" not in page
        assert "<i>" not in page
        assert "<script" not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
    ],
)
def test_another_sites_form_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    sign_up(client)
    assert client.post("/account/close", headers=headers).status_code == 403
    assert client.get("/account").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}]
)
def test_the_sites_own_form_is_accepted(client: FlaskClient, headers: dict[str, str]) -> None:
    sign_up(client)
    assert client.post("/account/close", headers=headers).status_code == 302


def test_pages_forbid_inline_code_and_have_none(client: FlaskClient) -> None:
    sign_up(client)
    post = write(client)
    for path in ("/", post, "/write", "/account", "/signup", "/login", "/nowhere"):
        answer = client.get(path)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "<script" not in answer.text
        assert "style=" not in answer.text


def test_the_dashboard_is_open_only_on_this_machine(app: Flask) -> None:
    app.testing = False  # which would open it
    client = app.test_client()
    assert client.get("/bitmapist/").status_code == 200
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert client.get("/bitmapist/", environ_base=elsewhere).location.startswith("/login")
    assert client.get("/bitmapist/?format=json", environ_base=elsewhere).status_code == 403


def test_readers_are_found_by_part_of_their_name(client: FlaskClient) -> None:
    for name in ("Ada", "Adam", "100%"):
        sign_up(client, name)
    found = client.get("/bitmapist/find?text=ada&format=csv").text
    assert [line.split(",")[1] for line in found.splitlines()[1:]] == ["Ada", "Adam"]
    assert "/bitmapist/person?id=" in client.get("/bitmapist/find?text=%25").location


@pytest.mark.skipif(version("flask") < "3.1", reason="Flask 3.0 knows no TRUSTED_HOSTS")
def test_a_foreign_host_name_is_refused(client: FlaskClient) -> None:
    assert client.get("/", headers={"Host": "rebound.example"}).status_code == 400


def test_the_session_outlives_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as app:
        sign_up(client := app.test_client())
        cookie = client.get_cookie("marginalia")
    assert cookie is not None
    with started(tmp_path) as app:
        client = app.test_client()
        client.set_cookie("marginalia", cookie.value)
        assert client.get("/account").status_code == 200


# The played history


def test_bitmapists_own_classes_read_what_the_rows_say(played: Flask) -> None:
    with played.app_context():
        joined = {user.id: user.joined_at for user in db.session.scalars(select(User))}
        for month in (1, 2, 3):
            created = set(MonthEvents("user:created", 2026, month))
            here_still = {user_id for user_id in created if user_id in joined}
            assert here_still == {
                user_id for user_id, moment in joined.items() if moment.month == month
            }
            assert len(created) > 50
            assert created <= set(MonthEvents("user:seen", 2026, month))
        premium = set(db.session.scalars(select(User.id).where(User.premium)))
        assert set(UniqueEvents("user:premium")) == premium


def test_its_rows_are_marked_by_a_backfill_alone(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Backfilled] = []
    run = Backfill.run

    def noting(backfill: Backfill, **named: Any) -> Backfilled:
        assert backfill.names.event not in get_event_names()
        done.append(run(backfill, **named))
        return done[-1]

    monkeypatch.setattr(Backfill, "run", noting)
    play(app, days=5, users=40, until=UNTIL)
    with app.app_context():
        users, posts = (
            db.session.scalar(select(func.count()).select_from(model)) for model in (User, Post)
        )
    marked = [(one.event, one.marked) for one in done]
    assert marked == [("user:created", users), ("post:created", posts)]


def test_posts_and_likes_have_rows_and_marks(played: Flask) -> None:
    with played.app_context():
        posts = {
            (post.created_at.date(), post.author_id) for post in db.session.scalars(select(Post))
        }
        assert len(posts) > 50
        for day, author in posts:
            assert author in DayEvents.from_date("post:created", day)
        likers = set(db.session.scalars(select(Like.user_id)))
        liked = {
            user for month in (12, 1, 2, 3) for user in MonthEvents("post:liked", *_year(month))
        }
        assert likers <= liked


def _year(month: int) -> tuple[int, int]:
    return (2025 if month == 12 else 2026), month


def test_a_closed_account_does_nothing_more(played: Flask) -> None:
    with played.app_context():
        days = [UNTIL.date() - timedelta(days=age) for age in reversed(range(90))]
        gone = set[int | str]()
        for day in days:
            gone |= set(DayEvents.from_date("user:deleted", day))
            assert gone.isdisjoint(DayEvents.from_date("user:seen", day))
        assert gone
        assert not db.session.scalar(select(User.id).where(User.id.in_(gone)))


def test_reports_tell_the_plan_that_somebody_had_then(played: Flask) -> None:
    with played.app_context():
        now, then = (
            analytics.trend(
                "user:seen",
                "month",
                over="last 4 months",
                breakdown="user:plan",
                as_of=as_of,
                now=UNTIL,
            )
            for as_of in get_args(AsOf)
        )
    premium_now, premium_then = (
        [point.users for point in report.parts["premium"].points] for report in (now, then)
    )
    assert premium_now[-1] == premium_then[-1], "the present month is as now"
    # Most of those who were here first have gone premium since.
    assert 2 * premium_then[0] < premium_now[0]


def test_premium_readers_come_back_more_often_than_free_ones(played: Flask) -> None:
    with played.app_context():
        premium = set(UniqueEvents("user:premium"))
        newcomers, returned = set[int | str](), set[int | str]()
        for age in range(8, 12):  # weeks ago, so that each cohort has had six weeks
            monday = UNTIL - timedelta(weeks=age)
            cohort = set(WeekEvents.from_date("user:created", monday))
            newcomers |= cohort
            later = monday + timedelta(weeks=6)
            returned |= cohort & set(WeekEvents.from_date("user:seen", later))
    rate_of_premium = len(returned & premium) / len(newcomers & premium)
    rate_of_free = len(returned - premium) / len(newcomers - premium)
    assert rate_of_premium > 1.3 * rate_of_free > 0


def test_the_community_grows(played: Flask) -> None:
    with played.app_context():
        first, last = (
            {
                user
                for age in ages
                for user in DayEvents.from_date("user:seen", UNTIL - timedelta(days=age))
            }
            for ages in (range(83, 90), range(1, 8))
        )
    assert len(last) > 2 * len(first)


def test_nothing_happens_after_now(played: Flask) -> None:
    with played.app_context():
        assert (db.session.scalar(select(func.max(User.joined_at))) or UNTIL) <= UNTIL
        assert (db.session.scalar(select(func.max(Post.created_at))) or UNTIL) <= UNTIL
        tomorrow = UNTIL + timedelta(days=1)
        assert not DayEvents.from_date("user:seen", tomorrow)
        assert DayEvents.from_date("user:seen", UNTIL)


def test_a_day_that_has_just_begun_is_nearly_empty(tmp_path: Path) -> None:
    with started(tmp_path) as app, app.app_context():
        midnight = datetime(2026, 3, 10, 0, 0, 1, tzinfo=UTC)
        play(app, days=3, users=60, until=midnight)
        assert len(DayEvents.from_date("user:seen", midnight - timedelta(days=1))) > 10
        assert len(DayEvents.from_date("user:seen", midnight)) <= 1


def contents(app: Flask) -> tuple[list[str], dict[bytes, object]]:
    """Every row of the database, and every key of Redis."""
    with app.app_context(), closing(sqlite3.connect(str(db.engine.url.database))) as rows:
        redis = app.extensions["bitmapist"].tracker.redis
        keys = sorted(redis.keys("trackist_*"))
        return list(rows.iterdump()), {key: redis.get(key) for key in keys}


def test_a_seed_gives_one_history(tmp_path: Path) -> None:
    histories = []
    for folder, seed in (("one", 7), ("same", 7), ("other", 8)):
        with started(tmp_path / folder) as app:
            play(app, days=15, users=60, seed=seed, until=UNTIL)
            histories.append(contents(app))
    one, same, other = histories
    assert one == same
    assert one != other


# Starting it


def test_a_second_start_keeps_the_data(tmp_path: Path) -> None:
    with started(tmp_path) as app:
        assert ensure_played(app, days=5, users=30)
        user_id = sign_up(app.test_client())
        before = contents(app)
    with started(tmp_path) as app:
        assert not ensure_played(app, days=5, users=30)
        assert contents(app) == before
        assert user_id in today(app, "user:created")


def test_the_history_never_empties_a_server_of_somebody_else(
    tmp_path: Path,
) -> None:
    app = create_app(tmp_path, {"BITMAPIST_REDIS_URL": "redis://127.0.0.1:1"})
    with pytest.raises(RuntimeError, match="must be embedded://"):
        ensure_played(app)
    with app.app_context():
        db.engine.dispose()


def start(folder: Path, port: int, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flask_bitmapist.demo", "--instance", str(folder), *options],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_open(port: int) -> bool:
    with socket.socket() as visitor:
        return visitor.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], demo: subprocess.Popen[str]) -> None:
    eventually(lambda: condition() or demo.poll() is not None)
    assert demo.poll() is None, demo.communicate()


def count_users(folder: Path) -> int:
    database = f"file:{folder}/marginalia.sqlite3?mode=ro"
    try:
        with closing(sqlite3.connect(database, uri=True)) as rows:
            return int(rows.execute("SELECT count(*) FROM user").fetchone()[0])
    except sqlite3.OperationalError:  # no file or no table yet
        return 0


def test_it_tells_what_packing_would_save_and_packs_nothing(played: Flask) -> None:
    pytest.importorskip("pyroaring")
    from flask_bitmapist.demo.packing import saving

    raw, packed = saving(played)
    assert 0 < 2 * packed <= raw
    client = played.extensions["bitmapist"].tracker_of(played).redis
    assert not client.keys("flask_bitmapist:packed:*")
    asked = played.test_cli_runner().invoke(args=["bitmapist", "pack", "--dry-run", "--csv"])
    assert asked.output.splitlines()[-1].endswith(f",{raw},{packed}")


def test_a_history_that_was_killed_half_way_starts_over(tmp_path: Path) -> None:
    demo = start(tmp_path, free_port(), "--days", "3000", "--users", "30000")
    try:
        wait_for(lambda: count_users(tmp_path) > 100, demo)
    finally:
        demo.kill()
        demo.communicate()
    with started(tmp_path) as app, app.app_context():
        half_played = db.session.scalar(select(func.min(User.joined_at)))
        db.session.rollback()
        assert half_played is not None
        assert DayEvents.from_date("user:logged_in", half_played)

        assert ensure_played(app, days=5, users=30)
        assert not DayEvents.from_date("user:logged_in", half_played)
        people = set(db.session.scalars(select(User.id)))
        assert min(people) == 1
        assert len(people) < 60


def test_python_m_plays_then_serves_the_app_and_its_dashboard(tmp_path: Path) -> None:
    port = free_port()
    demo = start(tmp_path, port, "--days", "30", "--users", "100")
    try:
        # The port is open from the start: the first visitor waits until the history is played.
        wait_for(lambda: is_open(port), demo)
        with urlopen(f"http://127.0.0.1:{port}/", timeout=120) as answer:
            assert "Recent posts" in answer.read().decode()
        with urlopen(f"http://127.0.0.1:{port}/bitmapist/", timeout=120) as answer:
            assert "user:seen" in answer.read().decode()
    finally:
        demo.terminate()
        output, errors = demo.communicate()
    assert f"http://127.0.0.1:{port}/\n" in output
    assert f"http://127.0.0.1:{port}/bitmapist/\n" in output
    assert "Playing 30 days" in output
    assert not errors


def test_a_taken_port_is_said_in_a_line_before_anything_is_played(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        demo = start(tmp_path / "demo", port)
        output, errors = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1
    assert f"Port {port} is taken" in errors
    assert "PORT=" in errors
    assert not (tmp_path / "demo").exists()


def test_importing_the_library_does_not_import_the_demo() -> None:
    check = "import sys, flask_bitmapist; sys.exit('flask_bitmapist.demo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_demo_can_be_asked_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [warm.python(), "-m", "flask", "--app", "flask_bitmapist.demo", "bitmapist", "events"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "There is nothing to show.\n"

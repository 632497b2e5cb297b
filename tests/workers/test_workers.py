"""Whatever runs the application, however it forks and ends: what was acknowledged arrives."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from servers import eventually

from .running import BIN, Site, Visitors, answers

WSGI = "workers.marking:app"
GUNICORN = (str(BIN / "gunicorn"), "--bind=unix:web.sock", "--workers=2", "--graceful-timeout=10")
UWSGI = (
    str(BIN / "uwsgi"), "--http-socket=web.sock", f"--wsgi-file={Path(__file__).parent}/marking.py",
    "--callable=app", "--master", "--processes=2", "--die-on-term", "--need-app",
    "--disable-logging",
)  # fmt: skip
SERVERS = {
    "gunicorn": (*GUNICORN, WSGI),
    "gunicorn --preload": (*GUNICORN, "--preload", WSGI),
    "gunicorn gthread": (*GUNICORN, "--worker-class=gthread", "--threads=4", WSGI),
    "gunicorn gthread --preload": (
        *GUNICORN, "--worker-class=gthread", "--threads=4", "--preload", WSGI,
    ),
    "gunicorn gevent": (*GUNICORN, "--worker-class=gevent", WSGI),
    "gunicorn gevent --preload": (*GUNICORN, "--worker-class=gevent", "--preload", WSGI),
    "uwsgi": UWSGI,
    "uwsgi --enable-threads": (*UWSGI, "--enable-threads", "--threads=2"),
    "uwsgi --lazy-apps": (*UWSGI, "--lazy-apps"),
    "waitress": (str(BIN / "waitress-serve"), "--unix-socket=web.sock", WSGI),
}  # fmt: skip
WAYS = ["os.fork", "fork", "spawn", "forkserver", "ProcessPoolExecutor"]


@pytest.fixture(params=["immediate", "background"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(tmp_path, request.param)
    yield site
    site.server.kill()


def needs(program: str) -> None:
    if not (BIN / program).exists():
        pytest.skip(f"needs {program}: nox -s workers installs it")


def arrive(site: Site, ids: set[int], visitors: Visitors) -> bool:
    visitors.mark()  # where no thread runs, it brings on the others
    return not site.missing() & ids


@pytest.mark.parametrize("server", SERVERS)
def test_a_web_server_loses_no_mark_in_an_outage_nor_at_its_end(site: Site, server: str) -> None:
    needs(Path(SERVERS[server][0]).name)
    path = str(site.folder / "web.sock")
    visitors = Visitors(path)
    with site.running(*SERVERS[server], MARKS_BEFORE_FORK="1") as process:
        eventually(lambda: process.poll() is not None or answers(path))
        visitors.mark(100)
        site.server.kill()
        visitors.mark(50)
        site.server.start()
        waiting = site.acknowledged()
        eventually(lambda: arrive(site, waiting, visitors))
        visitors.begin(4)
        eventually(lambda: len(site.acknowledged()) > 200)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        visitors.end()
    site.deliver_the_rest()
    assert len(site.acknowledged()) > 200, site.output()
    assert not site.missing(), site.output()


def test_celerys_workers_lose_no_mark_when_they_are_replaced(site: Site) -> None:
    needs("celery")
    from celery import Celery

    tasks = Celery("tasks", broker=site.environment["MARKS_BROKER"])
    for id_ in range(100):
        tasks.send_task("mark", [id_])
    tasks.close()
    worker = ("celery", "-A", "workers.tasks", "worker", "--concurrency=2")
    with site.running(str(BIN / worker[0]), *worker[1:], "--max-tasks-per-child=15"):
        eventually(lambda: len(site.acknowledged()) == 100)
    site.deliver_the_rest()
    assert not site.missing(), site.output()


def test_rqs_workers_lose_no_mark_though_their_children_just_exit(site: Site) -> None:
    needs("rq")
    from rq import Queue

    with redis_py.Redis.from_url(f"{site.server.url}?db=1") as broker:
        for id_ in range(10):
            Queue(connection=broker).enqueue("workers.marking.mark", id_)
    broker_url = f"--url=unix://{site.folder}/server.sock?db=1"
    with site.running(str(BIN / "rq"), "worker", "--burst", broker_url) as worker:
        worker.wait(timeout=60)
    site.deliver_the_rest()
    assert len(site.acknowledged()) == 10, site.output()
    assert not site.missing(), site.output()


@pytest.mark.parametrize("way", WAYS)
def test_child_processes_lose_no_mark_however_they_end(site: Site, way: str) -> None:
    with site.running(
        sys.executable, "-m", "workers.children", way, "200", MARKS_BEFORE_FORK="1"
    ) as parent:
        assert parent.wait(timeout=60) == 0, site.output()
    site.deliver_the_rest()
    assert len(site.acknowledged()) == 200, site.output()
    assert not site.missing(), site.output()


@pytest.mark.parametrize("ending", ["kill", "terminate", "flush", "exit"])
def test_a_signal_in_the_middle_of_it_all_loses_no_mark(site: Site, ending: str) -> None:
    number = signal.SIGKILL if ending == "kill" else signal.SIGTERM
    with site.running(sys.executable, "-m", "workers.signalled", ending) as process:
        eventually(lambda: len(site.acknowledged()) > 1_000 or process.poll() is not None)
        process.send_signal(number)
        # What runs meanwhile is acknowledged, or not: some threads go on until the end.
        code = process.wait(timeout=60)
    assert code == (-number if ending in ("kill", "terminate") else 0), site.output()
    site.deliver_the_rest()
    assert not site.missing(), site.output()

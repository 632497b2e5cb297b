"""A run that is interrupted, and one whose server restarts, falls back or stays away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from servers import MortalServer
from sqlalchemy import Engine

from flask_bitmapist.maintenance import importing
from flask_bitmapist.maintenance.backfill import Backfill, Backfilled
from flask_bitmapist.maintenance.importing import Import, Imported
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.tracker import Tracker

from .bits import bits_for, bits_of, flag_bits
from .conftest import Shell
from .shops import Customer, moment

EVERYBODY = range(1, 201)


def expected() -> Any:
    marks = bits_for("customer:created", [(id_, moment(id_)) for id_ in EVERYBODY])
    return marks | flag_bits("customer:vip", [id_ for id_ in EVERYBODY if id_ % 5 == 0])


@pytest.fixture
def tracker(mortal: MortalServer, process: Callable[..., Tracker], small_pages: None) -> Tracker:
    return process(mortal.url)


def at_row(number: int, do: Callable[[], object]) -> Callable[[Backfilled], None]:
    """Do something once, when so many rows are done."""
    left = [do]

    def told(done: Backfilled) -> None:
        if done.rows >= number and left:
            left.pop()()

    return told


def test_a_server_that_restarts_is_waited_for(
    mortal: MortalServer, tracker: Tracker, shop: Engine
) -> None:
    back = threading.Timer(0.4, mortal.start)

    def restart() -> None:
        mortal.kill()
        back.start()

    done = Backfill(tracker, Customer, "joined", source=shop).run(told=at_row(60, restart))
    back.join()
    assert bits_of(tracker) == expected()
    assert (done.rows, done.marked) == (200, 200)


def test_an_import_waits_for_it_too(
    mortal: MortalServer, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PAGE", 17)
    file = tmp_path / "log.csv"
    lines = [f"song,{id_},{moment(id_).date()}" for id_ in EVERYBODY]
    file.write_text("\n".join(["event,user,time", *lines]))
    back, left = threading.Timer(0.4, mortal.start), [mortal.kill]

    def restart(done: Imported) -> None:
        if done.lines >= 60 and left:
            left.pop()()
            back.start()

    done = Import(tracker, str(file), "csv", rejects=tmp_path / "rejects.csv").run(told=restart)
    back.join()
    days = {id_: datetime.combine(moment(id_), datetime.min.time()) for id_ in EVERYBODY}
    assert bits_of(tracker) == bits_for("song", [*days.items()])
    assert (done.lines, done.marked, left) == (200, 200, [])


@pytest.mark.parametrize("kept", [30, 0], ids=["some of it", "all of it"])
def test_what_a_server_has_lost_is_done_again(
    kept: int, mortal: MortalServer, tracker: Tracker, shop: Engine
) -> None:
    saved: dict[Path, bytes] = {}

    def fall_back() -> None:
        mortal.kill()
        for file in (mortal.folder / "appendonlydir").glob("*.incr.aof"):
            file.write_bytes(saved.get(file, b""))
        mortal.start()

    def save() -> None:
        for file in (mortal.folder / "appendonlydir").glob("*.incr.aof"):
            saved[file] = file.read_bytes()

    first, second = at_row(kept or 10**9, save), at_row(120, fall_back)
    job = Backfill(tracker, Customer, "joined", source=shop)
    done = job.run(told=lambda done: (first(done), second(done)))
    assert bits_of(tracker) == expected()
    assert (done.rows, done.marked) == (200, 200)


def test_a_server_that_stays_away_stops_the_run_which_says_where_to_resume(
    mortal: MortalServer, tracker: Tracker, shop: Engine
) -> None:
    job = Backfill(tracker, Customer, "joined", source=shop)
    with pytest.raises(StoppedError) as stopped:
        job.run(patience=0.3, told=at_row(60, mortal.kill))
    assert stopped.value.after == (stopped.value.counts.rows,) == (68,)
    assert tracker.stats().backlog == 0
    mortal.start()
    rest = job.run(after=stopped.value.after)
    assert rest.rows == 132
    assert bits_of(tracker) == expected()


BACKFILL = (
    "flask --app shop bitmapist backfill history.shops:Customer --at joined --session shop:engine"
)


def test_ctrl_c_says_how_to_go_on_and_that_completes_it(
    shell: Shell, redis_url: str, process: Callable[..., Tracker]
) -> None:
    stopped = shell(BACKFILL, PAGES="3")
    assert stopped.returncode == 130, stopped.stderr
    after = stopped.stderr.split("--after ")[1].split()[0]
    assert "Interrupted" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    resumed = shell(f"{BACKFILL} --after {after} --json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rows"] == 200 - int(after)
    assert bits_of(process(redis_url)) == expected()


def test_the_command_tells_what_it_has_done(shell: Shell) -> None:
    told = json.loads(shell(f"{BACKFILL} --dry-run --json").stdout)
    assert (told["rows"], told["marked"], told["first"]) == (200, 200, "2021-03-14")
    table = shell(BACKFILL).stdout.splitlines()
    assert ["marked", "200"] in [line.split() for line in table]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("--where 'no_such = 1'", 1, "no such column: no_such"),
        ("--event ' x'", 2, "cannot name an event"),
        ("--timezone Nowhere", 2, "is no time zone"),
        ("--after nonsense", 2, "is no key"),
        ("--since yesterday", 2, "yesterday"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: str, code: int, complaint: str, shell: Shell
) -> None:
    done = shell(f"{BACKFILL} {arguments}")
    assert (done.returncode, complaint in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_there_is_none_is_a_sentence(shell: Shell) -> None:
    done = shell("flask --app shop bitmapist backfill shop:Nobody --at joined")
    assert done.returncode == 2
    assert "cannot be imported" in done.stderr

"""Three processes read reports while a fourth marks: every figure lies between before and after.

Marks are only added, so each set e[p] grows from what it was before to what it is after, whatever
the moment at which its bitmap was read. What is computed with OR and AND alone can only grow; what
is taken away from (AND NOT) can only shrink a figure. Hence a lowest and a highest value of each.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier, Event
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis as redis_py
from flask import Flask
from warm import WARM

from flask_bitmapist import FlaskBitmapist, analytics
from flask_bitmapist.marks import Mark
from flask_bitmapist.reading import bitmaps as bitmaps_module
from flask_bitmapist.reading.segments import Flag
from flask_bitmapist.tracker import Tracker

from . import reference
from .reference import NOBODY, Entry, Expr, Users, World

NOW = datetime(2026, 11, 11, 12)
DAYS = [datetime(2026, 11, 11) - timedelta(days=back) for back in reversed(range(10))]
WEEKS = [datetime(2026, 11, 2), datetime(2026, 11, 9)]
USERS = 4000
READERS = 3
BATCHES = 30
BATCHES_A_ROUND = 6
PATIENCE = 60.0

A, B = ("event", "a"), ("event", "b")
BOTH, EITHER = ("&", A, B), ("|", A, B)

Figures = dict[str, int]
Bounds = dict[str, tuple[int, int]]


def history() -> tuple[list[Mark], list[list[Mark]]]:
    """The marks of before, and batches of those to come: backfills and today's, and flags."""
    dice = random.Random(4)

    def mark() -> Mark:
        user = dice.choice((dice.randrange(40), dice.randrange(USERS)))
        if dice.random() < 0.1:
            return Mark(dice.choice(("blue", "green")), user, dated=False)
        days_ago = dice.choice((0, 1, 2, 3, dice.randrange(13), dice.randrange(50)))
        return Mark(dice.choice("ab"), user, when=NOW - timedelta(days=days_ago))

    return [mark() for _ in range(400)], [[mark() for _ in range(8)] for _ in range(BATCHES)]


def world(marks: list[Any]) -> World:
    log = [Entry(m.event, m.id, m.when) for m in marks if m.dated]
    flags = {flag: frozenset(m.id for m in marks if m.event == flag) for flag in ("blue", "green")}
    return World(ZoneInfo("UTC"), log, flags)


def read(tracker: Tracker) -> Figures:
    """One round of reports."""
    figures: Figures = {}
    span: dict[str, Any] = {"start": DAYS[0], "end": DAYS[-1], "now": NOW, "tracker": tracker}

    def note(name: str, values: Any) -> None:
        figures.update({f"{name} {index}": value for index, value in enumerate(values)})

    for rolling in (1, 3):
        points = analytics.trend("a", rolling=rolling, **span).points
        note(f"trend over {rolling}", [p.users for p in points])
    note("trend of both", [p.users for p in analytics.trend("a & b", **span).points])
    note("weeks", [p.users for p in analytics.trend("a | b", "week", **span).points])

    for members in ("every", "first"):
        for mode in ("on", "on_or_after", "on_or_before", "streak", "first_return"):
            table = analytics.retention(
                "a", "b", "day", periods=3, mode=mode, members=members, **span
            )
            note(f"{members} size", [row.size for row in table.rows])
            for row, of_row in enumerate(table.rows):
                seen = [cell.users for cell in of_row.cells if cell.users is not None]
                note(f"{members} {mode} row {row}", seen)
                assert all(users <= of_row.size for users in seen)
                assert mode != "first_return" or sum(seen) <= of_row.size

    life = analytics.lifecycle("a", "day", **span).points
    for field in ("new", "returning", "resurrected", "dormant"):
        note(field, [getattr(p, field) for p in life])
    note("lifecycle", [p.new + p.returning + p.resurrected for p in life])

    sticky = analytics.stickiness("a", "day", within=10, end=DAYS[-1], now=NOW, tracker=tracker)
    note(
        "active on more than",
        [sum(sticky.counts.get(k, 0) for k in range(least, 11)) for least in range(1, 11)],
    )
    assert sum(sticky.counts.values()) == sticky.users
    for order in ("ordered", "strict", "any"):
        for within in (None, 2):
            steps = analytics.funnel(
                ["a", "b", "a & b"], "day", within=within, order=order, **span
            ).steps
            note(f"funnel {order} {within}", [step.users for step in steps])
            assert steps[0].users >= steps[1].users >= steps[2].users
    adopted = analytics.adoption("b", "a", "day", **span).points
    note("active", [p.active for p in adopted])
    note("adopted", [p.users for p in adopted])
    note("newly adopted", [p.new for p in adopted])
    counts = analytics.overlap(["a", "b"], "day", at=DAYS[-2], now=NOW, tracker=tracker).counts
    note("overlap", [n for row in counts for n in row])
    note("churned", [p.users for p in analytics.churned("a", 2, "day", **span).points])
    arms = analytics.compare([Flag("blue"), Flag("green")], "a", by="day", **span).arms
    note("arm", [arm.size for arm in arms])
    note("converted", [arm.converted for arm in arms])
    for user in range(3):
        found = analytics.timeline(user, DAYS[0], DAYS[-1], now=NOW, tracker=tracker).days
        note(f"days of {user}", [len(found.get(event, [])) for event in "ab"])
    figures["count"] = analytics.count("a & b", "month", at=NOW, tracker=tracker)
    return figures


def can_only_grow(w: World) -> Figures:
    """What OR and AND make, in one state of the world."""
    figures: Figures = {}
    now = DAYS[-1]

    def note(name: str, values: Any) -> None:
        figures.update({f"{name} {index}": value for index, value in enumerate(values)})

    for rolling in (1, 3):
        points = reference.trend(w, A, "day", DAYS, now, rolling=rolling)
        note(f"trend over {rolling}", [users for _, users, _ in points])
    note("trend of both", [users for _, users, _ in reference.trend(w, BOTH, "day", DAYS, now)])
    note("weeks", [users for _, users, _ in reference.trend(w, EITHER, "week", WEEKS, now)])
    for mode in ("on", "on_or_after", "on_or_before", "streak"):
        rows = reference.retention(w, A, B, "day", 3, DAYS, now, mode, "every")
        note("every size", [row.size for row in rows])
        for row, of_row in enumerate(rows):
            note(f"every {mode} row {row}", [n for n, _ in of_row.cells if n is not None])
    life = reference.lifecycle(w, A, "day", DAYS, now)
    note("returning", [p[2] for p in life])
    note("lifecycle", [p[1] + p[2] + p[3] for p in life])
    _, counts, _ = reference.stickiness(w, A, "day", 10, DAYS[-1])
    note("active on more than", [sum(counts[k] for k in range(n, 11)) for n in range(1, 11)])
    for order in ("ordered", "strict", "any"):
        for within in (None, 2):
            steps = reference.funnel(w, [A, B, BOTH], "day", DAYS, now, within, order)
            note(f"funnel {order} {within}", steps)
    adopted = reference.adoption(w, B, A, "day", DAYS)
    note("active", [p[1] for p in adopted])
    note("adopted", [p[2] for p in adopted])
    note("overlap", [n for row in reference.overlap(w, [A, B], "day", DAYS[-2])[0] for n in row])
    arms = reference.compare(w, ["blue", "green"], A, "day", DAYS)
    note("arm", [arm[0] for arm in arms])
    note("converted", [arm[1] for arm in arms])
    for user in range(3):
        days, _, _ = reference.timeline(w, user, DAYS[0].date(), DAYS[-1].date())
        note(f"days of {user}", [len(days.get(event, [])) for event in "ab"])
    figures["count"] = len(w.did(BOTH, "month", datetime(2026, 11, 1)))
    return figures


def extreme(plus: World, minus: World) -> Figures:
    """What AND NOT makes: of what is in `plus`, less what is in `minus`."""
    figures: Figures = {}
    day = timedelta(days=1)

    def did(w: World, expr: Expr, p: datetime) -> Users:
        return w.did(expr, "day", p)

    def some(w: World, expr: Expr, first: datetime, last: datetime) -> Users:
        days = [first + n * day for n in range((last - first).days + 1)]
        return NOBODY.union(*(did(w, expr, p) for p in days))

    for index, p in enumerate(DAYS):
        new = did(plus, A, p) - minus.before(A, "day", p)
        figures[f"new {index}"] = figures[f"first size {index}"] = len(new)
        past = did(plus, A, p) & plus.before(A, "day", p)
        figures[f"resurrected {index}"] = len(past - did(minus, A, p - day))
        figures[f"dormant {index}"] = len(did(plus, A, p - day) - did(minus, A, p))
        adopted = did(plus, A, p) & did(plus, B, p) - minus.before(B, "day", p)
        figures[f"newly adopted {index}"] = len(adopted)
        if p + 2 * day < DAYS[-1]:
            gone = did(plus, A, p) - some(minus, A, p + day, p + 2 * day)
            figures[f"churned {index}"] = len(gone)
        for members, c in (("first", new), ("every", did(plus, A, p))):
            for k in range(4):
                asked = p + k * day
                if asked > DAYS[-1]:
                    break
                back = did(plus, B, asked)
                later = some(plus, B, asked, DAYS[-1])
                so_far = some(plus, B, p, asked)
                streak = back.intersection(*(did(plus, B, p + n * day) for n in range(k)))
                again = some(minus, B, p, asked - day)
                figures[f"{members} first_return row {index} {k}"] = len((c & back) - again)
                if members == "first":
                    figures[f"first on row {index} {k}"] = len(c & back)
                    figures[f"first on_or_after row {index} {k}"] = len(c & later)
                    figures[f"first on_or_before row {index} {k}"] = len(c & so_far)
                    figures[f"first streak row {index} {k}"] = len(c & streak)
    return figures


def tracker_of(client: redis_py.Redis) -> Tracker:
    app = Flask("concurrent")
    app.config.update(
        TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True
    )
    app.config["BITMAPIST_TIMEOUT"] = PATIENCE
    FlaskBitmapist(app, redis_client=client)
    tracker: Tracker = app.extensions["bitmapist"].tracker_of(app)
    return tracker


def keep_reading(
    address: dict[str, Any], sliced: bool, ready: Barrier, done: Event, rounds: Any, found: Any
) -> None:
    """A process: rounds of reports before, while and after the marks are made."""
    if sliced:
        bitmaps_module.BUDGET, bitmaps_module._SLICE_UNIT = 8192, 64
    with redis_py.Redis(username="reader", **address) as client:
        tracker = tracker_of(client)
        seen = [read(tracker)]
        ready.wait(PATIENCE)
        while not done.is_set():
            seen.append(read(tracker))
            rounds.release()
        seen.append(read(tracker))
    found.put(seen)


def keep_marking(address: dict[str, Any], ready: Barrier, done: Event, all_rounds: Any) -> None:
    """A process: batch after batch, while each of the readers gets through round after round."""
    with redis_py.Redis(**address) as client:
        tracker = tracker_of(client)
        ready.wait(PATIENCE)
        for number, batch in enumerate(history()[1]):
            tracker.record(batch)
            if number % BATCHES_A_ROUND == 0:
                for rounds in all_rounds:
                    assert rounds.acquire(timeout=PATIENCE)
        assert tracker.flush()
        done.set()


@pytest.fixture
def address(redis: redis_py.Redis) -> Iterator[dict[str, Any]]:
    """The run's server, with a user ``reader`` who may not write."""
    options = redis.connection_pool.connection_kwargs
    rights = ["on", "nopass", "%R~*", "+@read", "+@connection", "-keys"]
    redis.execute_command("ACL", "SETUSER", "reader", "reset", *rights)
    yield {"unix_socket_path": options["path"], "db": options["db"]}
    redis.execute_command("ACL", "DELUSER", "reader")


def test_the_reader_of_this_test_cannot_write(address: dict[str, Any]) -> None:
    with redis_py.Redis(username="reader", **address) as client:
        for write in (
            ["SETBIT", "trackist_a_u", 1, 1],
            ["BITOP", "AND", "x", "y", "z"],
            ["HSET", "flask_bitmapist:x", "y", "z"],
        ):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.execute_command(*write)


def test_readers_beside_a_writer_see_nothing_but_what_was_or_will_be(
    redis: redis_py.Redis, address: dict[str, Any]
) -> None:
    first, batches = history()
    tracker_of(redis).record(first)
    before, after = world(first), world(first + [mark for batch in batches for mark in batch])

    ready, done, found = WARM.Barrier(READERS + 1), WARM.Event(), WARM.Queue()
    all_rounds = [WARM.Semaphore(0) for _ in range(READERS)]
    processes = [
        WARM.Process(target=keep_reading, args=(address, i == 0, ready, done, rounds, found))
        for i, rounds in enumerate(all_rounds)
    ]
    processes.append(WARM.Process(target=keep_marking, args=(address, ready, done, all_rounds)))
    for process in processes:
        process.start()
    try:
        seen = [found.get(timeout=PATIENCE) for _ in range(READERS)]
        for process in processes:
            process.join(PATIENCE)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
            process.join()

    growing = {name: (can_only_grow(before)[name], n) for name, n in can_only_grow(after).items()}
    lowest, highest = extreme(before, after), extreme(after, before)
    bounds = growing | {name: (lowest[name], highest[name]) for name in lowest}
    at_first = can_only_grow(before) | extreme(before, before)
    at_last = can_only_grow(after) | extreme(after, after)
    between = 0
    for rounds in seen:
        assert rounds[0] == at_first
        assert rounds[-1] == at_last
        for earlier, later in itertools.pairwise(rounds):
            assert later.keys() == bounds.keys()
            for name, (low, high) in bounds.items():
                assert low <= later[name] <= high, name
            for name in growing:
                assert earlier[name] <= later[name], name
            between += later not in (at_first, at_last)
    assert between >= BATCHES // BATCHES_A_ROUND, "they did read while marks were made"

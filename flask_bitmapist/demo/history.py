"""A year of Marginalia, as an application has it that installs Flask-Bitmapist late.

The people are invented, the marks are not. The year's rows are inserted in bulk, which nobody
sees, and then marked by a backfill, like the history of any application. What leaves no row of a
model behind (a login, a read, a like) is marked with `mark_event`, for many people at once. A row
says which plan somebody has now, not since when: `mark_dimension` marks each change.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from flask import Flask
from numpy.typing import NDArray
from redis import RedisError
from sqlalchemy import insert, select, update

from flask_bitmapist import mark_dimension, mark_event
from flask_bitmapist.maintenance.backfill import Backfill
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.tracker import Tracker

from . import prose
from .models import Like, PlayedYear, Post, User, db

DAYS = 365
USERS = 3_000
SEED = 2016

#: Monday to Sunday: how much people read, relative to a mean day.
WEEKDAYS = np.array([1.12, 1.1, 1.06, 1.02, 0.92, 0.8, 0.98])
#: Sign-ups grow by this factor from the first day to the last.
GROWTH = 4.0
#: How long a habit lasts: days until it has fallen to 1/e, the median and the spread (of the
#: logarithm) over all people. Few last very long, so retention falls steeply and then flattens.
STAMINA, SPREAD = 22.0, 1.3
#: How many times longer it lasts from the upgrade on: the whole difference that premium makes.
PREMIUM_STAMINA = 8.0
#: The chance that somebody who has lost the habit looks in again.
CURIOSITY = 0.006
#: Chances of those who are here on a day; accounts are closed by those who are not.
READS, LIKES, WRITES, UPGRADES, LOGS_OUT, CLOSES = 0.8, 0.3, 0.06, 0.013, 0.15, 0.0012
#: The chance that a returning person has to log in: the others' browsers remember them.
LOGS_IN = 0.25
#: A post is liked while it is among the newest ones.
NEWEST = 120


def ensure_played(app: Flask, *, days: int = DAYS, users: int = USERS, seed: int = SEED) -> bool:
    """Play the history unless this instance folder has one; return whether it was played now.

    A history without its last row was interrupted: both databases are emptied and it starts over,
    so that nobody mistakes half a year for a whole one. A second process waits for the first.
    """
    with app.app_context(), _alone(Path(app.instance_path)):
        if db.session.scalar(select(PlayedYear.id)) is not None:
            return False
        _empty(app)
        play(app, days=days, users=users, seed=seed)
        return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "history.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # dropped by the kernel if we are killed
        yield


def _empty(app: Flask) -> None:
    if not app.config["BITMAPIST_REDIS_URL"].startswith("embedded://"):
        raise RuntimeError(
            "playing the demo's history empties its Redis first, so it must be embedded://"
        )
    tracker = app.extensions["bitmapist"].tracker
    tracker.redis.flushdb()
    if spool := tracker.settings.spool:  # marks that were waiting for Redis when it was interrupted
        for file in spool.parent.glob(f"{spool.name}*"):
            file.unlink()
    db.drop_all()
    db.create_all()


def play(
    app: Flask,
    *,
    days: int = DAYS,
    users: int = USERS,
    seed: int = SEED,
    until: datetime | None = None,
) -> None:
    """Play `days` days of about `users` people into empty databases.

    The last day is that of the moment `until` (default: now), and nothing happens after it. The
    same arguments give the same history.

    :raises redis.RedisError: if Redis did not take all of it.
    """
    until = until or datetime.now(UTC)
    community = _Community(seed)
    today = until.date()
    dates = [today - timedelta(days=age) for age in reversed(range(days))]
    arrivals = users * _arrival_shares(dates)
    progress = click.progressbar(dates, label=f"Playing {days} days", width=40)
    with app.app_context(), progress as bar:
        tracker = app.extensions["bitmapist"].tracker
        for day, expected in zip(bar, arrivals, strict=True):
            midnight = datetime.combine(day, time(), UTC)
            end = min(midnight + timedelta(days=1), until)
            with tracker.at(min(midnight + timedelta(hours=12), until)):
                community.live(midnight, end, expected)
        _backfill(tracker)
        community.delete_closed_accounts(tracker)
        if not tracker.flush():
            raise RedisError(
                "Redis did not take the history: the next start plays it from the beginning"
            )
        db.session.add(PlayedYear(until=until))
        db.session.commit()


def _backfill(tracker: Tracker) -> None:
    """Mark what the rows tell. ``flask bitmapist backfill`` does the same."""
    try:
        Backfill(tracker, User, "joined_at").run()
        Backfill(tracker, Post, "created_at").run()
    except StoppedError as stopped:  # a key was pressed, or the server does not answer
        raise stopped.__cause__ or stopped from None


def _arrival_shares(dates: list[date]) -> NDArray[np.float64]:
    """Each day's share of all sign-ups: exponential growth, in the rhythm of the week."""
    weekdays = WEEKDAYS[[day.weekday() for day in dates]]
    arrivals = GROWTH ** np.linspace(0, 1, len(dates)) * weekdays
    shares: NDArray[np.float64] = arrivals / arrivals.sum()
    return shares


class _Community:
    """Everybody who ever signed up: one element for each in every array, in the order of ids."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.random = Random(seed)
        self.names = prose.names(self.random)
        self.ids = np.empty(0, np.int64)
        self.habit = np.empty(0)
        self.stamina = np.empty(0)
        self.premium = np.empty(0, bool)
        self.member = np.empty(0, bool)
        self.newest: list[tuple[int, int]] = []  # (post, author)
        self.liked: set[tuple[int, int]] = set()  # (post, user)
        self.posts = 0
        self.closed: list[tuple[datetime, list[int]]] = []  # when, and whose accounts

    def live(self, midnight: datetime, end: datetime, arrivals: float) -> None:
        """Live one day, or the part of it before `end`: first the rows, in one transaction."""
        elapsed = (end - midnight) / timedelta(days=1)
        pace = elapsed * WEEKDAYS[midnight.weekday()]
        came_back = self.member & (
            self._tosses() < np.minimum(self.habit * pace, 0.97) + CURIOSITY * pace
        )
        self._close_accounts(~came_back, elapsed, midnight)
        born = self._sign_up(self.chance.poisson(arrivals * elapsed), midnight, end)
        here = np.concatenate([came_back & self.member[: len(came_back)], np.ones(born, bool)])
        upgraded = self._upgrade(here)
        self._write(here, midnight, end)
        readers = here & (self._tosses() < READS)
        likers = self._like(readers)
        db.session.commit()

        new = np.arange(len(self.ids)) >= len(came_back)
        mark_event("user:seen", self.ids[here])
        mark_event("user:logged_in", self.ids[new | (here & (self._tosses() < LOGS_IN))])
        mark_event("user:upgraded", self.ids[upgraded])
        mark_dimension("user:plan", self.ids[new], "free", dated=True)
        mark_dimension("user:plan", self.ids[upgraded], "premium", dated=True)
        mark_event("post:read", self.ids[readers])
        mark_event("post:liked", likers)
        mark_event("user:logged_out", self.ids[here & (self._tosses() < LOGS_OUT)])
        stamina = self.stamina * np.where(self.premium, PREMIUM_STAMINA, 1)
        self.habit *= np.exp(-elapsed / stamina)

    def _tosses(self) -> NDArray[np.float64]:
        return self.chance.random(len(self.ids))

    def _moments(self, count: int, midnight: datetime, end: datetime) -> list[datetime]:
        """`count` moments of waking hours before `end`, in order."""
        hours = np.sort(self.chance.triangular(6, 19, 24, count)) * (
            (end - midnight) / timedelta(days=1)
        )
        return [midnight + timedelta(hours=float(hour)) for hour in hours]

    def _sign_up(self, count: int, midnight: datetime, end: datetime) -> int:
        ids = len(self.ids) + 1 + np.arange(count)
        self.ids = np.concatenate([self.ids, ids])
        moments = self._moments(count, midnight, end)
        _insert(
            User,
            [
                {"id": id_, "name": next(self.names), "joined_at": moment}
                for id_, moment in zip(ids.tolist(), moments, strict=True)
            ],
        )
        self.habit = np.concatenate([self.habit, self.chance.beta(0.8, 1.9, count)])
        stamina = self.chance.lognormal(np.log(STAMINA), SPREAD, count)
        self.stamina = np.concatenate([self.stamina, stamina])
        self.premium = np.concatenate([self.premium, np.zeros(count, bool)])
        self.member = np.concatenate([self.member, np.ones(count, bool)])
        return count

    def _close_accounts(
        self, absent: NDArray[np.bool_], elapsed: float, midnight: datetime
    ) -> None:
        lapsed = self.member & absent & (self.habit < 0.1)
        leaving = lapsed & (self._tosses() < CLOSES * elapsed)
        if leaving.any():
            self.closed.append((midnight, self.ids[leaving].tolist()))
        self.member &= ~leaving

    def delete_closed_accounts(self, tracker: Tracker) -> None:
        """Delete the rows of closed accounts, whose deletion the mixin marks on its day.

        Not before the backfill: without its row an account would never have been created.
        """
        for midnight, ids in self.closed:
            with tracker.at(midnight):
                for user in db.session.scalars(select(User).where(User.id.in_(ids))):
                    db.session.delete(user)
                db.session.commit()

    def _upgrade(self, here: NDArray[np.bool_]) -> NDArray[np.bool_]:
        upgraded = here & ~self.premium & (self._tosses() < UPGRADES)
        if upgraded.any():
            ids = self.ids[upgraded].tolist()
            db.session.execute(update(User).where(User.id.in_(ids)).values(premium=True))
        self.premium |= upgraded
        return upgraded

    def _write(self, here: NDArray[np.bool_], midnight: datetime, end: datetime) -> None:
        authors = self.chance.permutation(self.ids[here & (self._tosses() < WRITES)]).tolist()
        posts = []
        for author, moment in zip(authors, self._moments(len(authors), midnight, end), strict=True):
            title, body = prose.post(self.random)
            self.posts += 1
            told = {"title": title, "body": body, "created_at": moment}
            posts.append({"id": self.posts, "author_id": author, **told})
        _insert(Post, posts)
        members = set(self.ids[self.member].tolist())  # posts go with their author
        newest = self.newest + [(post["id"], post["author_id"]) for post in posts]
        self.newest = [(post, author) for post, author in newest if author in members][-NEWEST:]

    def _like(self, readers: NDArray[np.bool_]) -> list[int]:
        """Like some of the newest posts; return the ids of those who did."""
        likes = []
        for user in self.ids[readers & (self._tosses() < LIKES)].tolist():
            for post, author in self.random.sample(
                self.newest, min(self.random.randint(1, 3), len(self.newest))
            ):
                if author != user and (post, user) not in self.liked:
                    self.liked.add((post, user))
                    likes.append({"post_id": post, "user_id": user})
        _insert(Like, likes)
        return sorted({like["user_id"] for like in likes})


def _insert(model: type[Any], rows: list[dict[str, Any]]) -> None:
    if rows:
        db.session.execute(insert(model), rows)

"""Another server takes over, or an older state comes back: what was acknowledged is sent again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from interpreter import run
from nodes import Marking, Pair, pair
from servers import DAY, MortalServer, eventually, marked

from flask_bitmapist.delivery.recent import Recent
from flask_bitmapist.marks import Mark, count, deed, singles
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair")) as both:
        yield both


#: A process that delivers what others have spooled.
DRAIN = """
import os, sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist
tracker = FlaskBitmapist(Flask("job"), {
    "BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_SPOOL": sys.argv[2], "BITMAPIST_TIMEOUT": 10,
}).tracker
assert tracker.flush()
"""


def mark(tracker: Tracker, *ids: object, value: bool = True) -> None:
    tracker.record([("e", id_, value, True, NOON) for id_ in ids])


class TestRestart:
    """The server starts again from its last snapshot."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[MortalServer]:
        server = MortalServer(tmp_path)
        server.start("--appendonly", "no")
        yield server
        server.kill()

    def go_back(self, server: MortalServer) -> None:
        server.kill()
        server.start("--appendonly", "no")

    def save(self, server: MortalServer) -> None:
        with redis_py.Redis.from_url(server.url) as client:
            client.save()

    def test_marks_since_the_snapshot_are_sent_again_once(
        self, server: MortalServer, tracker_on: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, 1)
        self.save(server)
        mark(tracker, *range(2, 5))
        mark(tracker, 7)
        self.go_back(server)
        mark(tracker, 8)
        assert tracker.flush()
        assert server.ids() == [1, 2, 3, 4, 7, 8]
        assert tracker.stats().resent >= 4
        mark(tracker, 9)
        assert tracker.flush()
        assert caplog.text.count("fallen back") == 1

    def test_what_is_lost_after_the_last_mark_is_sent_again(
        self, server: MortalServer, tracker_on: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the thread, which looks once more before it ends."""
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.1)
        monkeypatch.setattr("flask_bitmapist.delivery.recent._AGE", 2.0)
        tracker = tracker_on(server.url, BITMAPIST_DELIVERY="background")
        mark(tracker, 1)
        assert tracker.flush()
        self.save(server)
        mark(tracker, *range(2, 5))
        assert tracker.flush()
        self.go_back(server)
        assert server.ids() == [1]
        eventually(lambda: server.ids() == [1, 2, 3, 4])
        eventually(lambda: not tracker._deliverer()._flusher.runs)
        mark(tracker, 5)  # whoever marks then wakes it, or starts another
        eventually(lambda: server.ids() == [1, 2, 3, 4, 5])

    def test_marks_that_the_snapshot_has_are_not_sent_again(
        self, server: MortalServer, tracker_on: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, 1, 2)
        self.save(server)
        self.go_back(server)
        mark(tracker, 3)
        assert server.ids() == [1, 2, 3]
        assert tracker.stats().resent == 0
        assert "fallen back" not in caplog.text

    def test_the_last_of_mark_and_unmark_decides(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, 0)
        self.save(server)
        mark(tracker, 1, 2)
        mark(tracker, 1, value=False)
        mark(tracker, 3)
        mark(tracker, 2, value=False)
        mark(tracker, 2)
        in_turns = [(id_, value) for id_ in (5, 6) for value in (True, False)]
        tracker.record([("e", id_, value, True, NOON) for id_, value in [*in_turns, (5, True)]])
        self.go_back(server)
        mark(tracker, 3, value=False)
        assert tracker.flush()
        assert server.ids() == [0, 2, 5]

    def test_what_was_spooled_meanwhile_decides(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        """It is later than what is sent again, also where it takes several trips."""
        tracker = tracker_on(server.url)
        mark(tracker, 0)
        self.save(server)
        mark(tracker, 1, 2)
        server.kill()
        mark(tracker, 1, 2, value=False)
        mark(tracker, *range(1000, 3000))
        mark(tracker, 2)
        server.start("--appendonly", "no")
        eventually(tracker.flush)
        assert [id_ for id_ in server.ids() if id_ < 1000] == [0, 2]
        assert tracker.stats().resent > 0

    def test_what_another_process_has_drained_decides(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        """Though whoever made it finds out later that the server has lost what was before."""
        tracker, other = tracker_on(server.url), tracker_on(server.url)
        mark(tracker, 0)
        self.save(server)
        mark(tracker, *range(1, 9))
        tracker.record(Mark("user:plan", id_, dated=False, choice="free") for id_ in (1, 2))
        server.kill()
        with tracker._deliverer()._flusher.alone(None):
            mark(tracker, 1, 2, value=False)
            mark(tracker, 2)
            tracker.record([Mark("user:plan", 1, dated=False, choice="pro")])
            server.start("--appendonly", "no")
            assert other.flush()
        mark(tracker, 9)
        assert tracker.flush()
        assert server.ids() == [0, *range(2, 10)]
        assert server.ids("trackist_user:plan=free_u") == [2]
        assert server.ids("trackist_user:plan=pro_u") == [1]

    def test_what_a_fault_puts_in_doubt_is_older_than_what_waits(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        """As in a cluster, where each fault may be a failover."""
        tracker = tracker_on(server.url)
        mark(tracker, 1, 2)
        self.save(server)
        server.kill()
        mark(tracker, 1, value=False)
        tracker._deliverer()._sender.writer._recent.suspect()
        assert not tracker.flush()
        server.start("--appendonly", "no")
        eventually(tracker.flush)
        assert server.ids() == [2]

    def test_mapped_ids_get_new_offsets(self, server: MortalServer, tracker_on: Any) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, "a")
        self.save(server)
        mark(tracker, "b", "c")
        self.go_back(server)
        other = tracker_on(server.url)
        mark(other, "d")
        mark(tracker, "e")
        assert tracker.flush()
        users = set(tracker.reader.ids_at(server.ids(), ""))
        assert users == {"a", "b", "c", "d", "e"}

    def test_without_a_spool_too(self, server: MortalServer, tracker_on: Any) -> None:
        tracker = tracker_on(server.url, BITMAPIST_SPOOL=False)
        mark(tracker, 1)
        self.save(server)
        mark(tracker, 2)
        self.go_back(server)
        mark(tracker, 3)
        # The connection broke: whether that mark was lost is not the question here.
        mark(tracker, 4)
        assert {1, 2, 4} <= {*server.ids()}

    def test_what_the_server_then_refuses_waits(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        """It is sent again at once, before what is written now."""
        tracker = tracker_on(server.url)
        mark(tracker, 1)
        tracker.write_many("f", [1])
        self.save(server)
        mark(tracker, 2)
        self.go_back(server)
        with redis_py.Redis.from_url(server.url) as client:
            held = client.dump(DAY)
            client.delete(DAY)
            client.lpush(DAY, "what is no bitmap")
            tracker.write_many("f", [2])
            assert sum(tracker.stats().waiting.values()) >= 1
            client.restore(DAY, 0, held, replace=True)
        eventually(tracker.flush)
        assert server.ids() == [1, 2]

    @pytest.mark.parametrize("end", ["os._exit(0)", "tracker.close()"], ids=["killed", "ended"])
    @pytest.mark.parametrize("delivery", ["background", "immediate"])
    def test_what_a_process_that_is_gone_has_drained_is_sent_again(
        self,
        server: MortalServer,
        tracker_on: Any,
        end: str,
        delivery: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Such as a job's, though those that are left have lost nothing of their own."""
        monkeypatch.setattr("flask_bitmapist.delivery.courier._RECALL_PAUSE", 0.1)
        tracker = tracker_on(server.url, BITMAPIST_DELIVERY=delivery)
        mark(tracker, 1)
        assert tracker.flush()
        self.save(server)
        with tracker._deliverer()._flusher.alone(None):
            server.kill()
            mark(tracker, *range(2, 2_000))
            mark(tracker, 3, value=False)
            assert tracker._deliverer()._queue is None or tracker._deliverer()._queue.move(
                lambda moved: tracker._deliverer()._shelter.keep([(0.0, moved)])
            )
            server.start("--appendonly", "no")
            spool = tracker._deliverer()._shelter.spool.path
            run(DRAIN + end, server.url, str(spool))
        assert server.ids() == [1, 2, *range(4, 2_000)]
        self.go_back(server)
        assert server.ids() == [1]
        mark(tracker, 5_000)
        eventually(lambda: server.ids() == [1, 2, *range(4, 2_000), 5_000])

    def test_what_was_drained_is_kept_no_longer_than_it_takes_to_know(
        self, server: MortalServer, tracker_on: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery.recent._AGE", 0.5)
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.1)
        monkeypatch.setattr("flask_bitmapist.delivery.courier._RECALL_PAUSE", 0.1)
        tracker = tracker_on(server.url)
        mark(tracker, 1)
        server.kill()
        mark(tracker, 2)
        server.start()
        spool = tracker._deliverer()._shelter.spool.path
        eventually(lambda: not spool.exists())  # by the thread
        eventually(lambda: not tracker._deliverer()._flusher.runs)
        assert tracker.stats().resent == 0

    def test_what_was_drained_stays_gone_where_somebody_has_emptied_the_server(
        self, server: MortalServer, tracker_on: Any
    ) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, 1)
        server.kill()
        mark(tracker, 2)
        server.start()
        eventually(tracker.flush)
        with redis_py.Redis.from_url(server.url) as client:
            client.flushall()
        other = tracker_on(server.url)
        assert other.flush()
        assert server.ids() == []
        assert not other._deliverer()._shelter.spool.path.exists()

    def test_what_somebody_emptied_stays_empty(self, server: MortalServer, tracker_on: Any) -> None:
        tracker = tracker_on(server.url)
        mark(tracker, 1, 2)
        with redis_py.Redis.from_url(server.url) as client:
            client.flushall()
        mark(tracker, 3)
        assert server.ids() == [3]
        assert tracker.stats().resent == 0


class TestSentinel:
    """The Sentinel makes the replica the master."""

    def test_a_planned_failover_loses_no_acknowledged_mark(
        self, ours: Pair, tracker_on: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        ours.settle()
        ours.master.client.delete(DAY)
        tracker = tracker_on(client=ours.sentinels.master_for("ours", socket_timeout=5))
        with Marking(tracker) as marking:
            marking.makes(500)
            before = ours.master
            ours.fail_over()
            # The former master goes on taking marks until it is told.
            eventually(lambda: before.replication("role") == "slave")
            marking.makes(500)
        assert tracker.flush()
        assert marked(ours.master.client) == {*range(marking.made)}
        assert tracker.stats().resent > 0
        assert caplog.text.count("fallen back") == 1

    def test_the_death_of_a_master_loses_no_acknowledged_mark(
        self, ours: Pair, tracker_on: Any
    ) -> None:
        ours.settle()
        ours.master.client.delete(DAY)
        tracker = tracker_on(client=ours.sentinels.master_for("ours", socket_timeout=5))
        with Marking(tracker) as marking:
            marking.makes(500)
            before = ours.master
            before.kill()
            eventually(lambda: ours.master is not before)
            before.start("--replicaof", f"127.0.0.1 {ours.master.port}")
            marking.makes(500)
        eventually(tracker.flush)
        assert marked(ours.master.client) == {*range(marking.made)}


@pytest.mark.parametrize("kind", ["plain", "mapped"])
@pytest.mark.parametrize("ids", [100_000, 1_000_000], ids=["many calls", "one call"])
def test_of_very_many_marks_the_last_are_kept(kind: str, ids: int) -> None:
    """As many as fit some megabytes, also of an import in one call."""
    recent = Recent()
    recent.count = 1  # the server has had a trip
    what = deed("e", True, NOON, False, False, kind)
    for first in range(0, 1_000_000, ids):
        who: Any = np.arange(first, first + ids)
        recent.add([(what, who if kind == "plain" else [*map(str, who)])], recent.era, 0.0)
    recent.suspect()
    lost = [mark for of_span in recent.take_lost() for mark in of_span.marks]
    *_, (_, last) = singles(lost)
    assert str(last) == "999999"
    assert 50_000 <= count(lost) <= (600_000 if kind == "plain" else 80_000)


def test_marks_of_many_events_are_kept_beside_those_of_one() -> None:
    recent = Recent()
    recent.count = 1
    deeds = [deed(f"e{number}", True, NOON, False, False, "plain") for number in range(10_000)]
    made = [[(what, 7) for what in deeds], [(deeds[0], number) for number in range(10_000)]]
    for marks in made * 20:
        recent.add(marks, recent.era, 0.0)
    recent.suspect()
    lost = [mark for of_span in recent.take_lost() for mark in of_span.marks]
    assert {*singles(lost)} == {*made[0], *made[1]}
    assert 40_000 <= count(lost) <= 300_000

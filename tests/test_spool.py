"""The spool's file may be damaged, full, deleted or shared: what went in comes out."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from redis.sentinel import Sentinel
from servers import MortalServer, eventually
from spooling import DEED, NOON, SERVER, fill, keep_appending, keep_draining
from warm import WARM

from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.deadline import within
from flask_bitmapist.delivery.addresses import Addresses, server_of
from flask_bitmapist.delivery.apart import Apart
from flask_bitmapist.delivery.sent import Lost, Proof
from flask_bitmapist.delivery.spool import Spool, SpoolError
from flask_bitmapist.marks import Settled, singles
from flask_bitmapist.tracker import Tracker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bitmapist-spool.sqlite3"


@pytest.fixture
def spool(path: Path) -> Spool:
    return Spool(path, SERVER)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a spool that holds the marks of 0 to 2,999."""
    spool = Spool(tmp_path_factory.mktemp("filled") / "spool", SERVER)
    fill(spool, range(3_000))
    close(spool)
    return spool.path


def drained(spool: Spool) -> list[int]:
    """The ids that come out, in order; of those that come out twice, the second ones."""
    found: dict[int, None] = {}

    def write(marks: Sequence[Settled]) -> None:
        for _, id_ in singles(marks):
            found.pop(int(id_), None)
            found[int(id_)] = None

    while spool.holds_marks():
        assert spool.drain(write, trips=50)
    return [*found]


def refuse(marks: Sequence[Settled]) -> None:
    raise ConnectionError


def old_spool(path: Path, servers: Sequence[str]) -> None:
    """What the version before has made of a mark of 5 for each of `servers`."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(
        "CREATE TABLE spooled (id INTEGER PRIMARY KEY AUTOINCREMENT, "
        "server TEXT NOT NULL, marks TEXT NOT NULL)"
    )
    row = '[["e", 5, true, "2026-03-14T12:00:00", false, false, "plain", true]]'
    rows = [(server, row) for server in servers]
    db.executemany("INSERT INTO spooled (server, marks) VALUES (?, ?)", rows)
    db.commit()
    db.close()


def close(spool: Spool) -> None:
    """As the end of the process would."""
    spool.file.close()


def damage(file: Path, first: int, length: int = 4096) -> None:
    with file.open("r+b") as opened:
        opened.seek(first)
        opened.write(random.Random(1).randbytes(length))


class TestDamage:
    @pytest.mark.parametrize("page", range(1, 40, 3))
    def test_a_damaged_page_costs_the_marks_on_it_alone(
        self, spool: Spool, path: Path, page: int, filled: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copy(filled, path)
        assert path.stat().st_size > 40 * 4096
        damage(path, page * 4096)
        fill(spool, range(3_000, 3_010))
        found = drained(spool)
        assert found == sorted(set(found))
        assert found[-10:] == [*range(3_000, 3_010)]
        # A page between the root and the rows leads to some hundred pages.
        assert len(found) > 2_900 or page < 3
        fill(spool, [1])
        assert drained(spool) == [1]
        if len(found) < 3_010:
            assert "is damaged" in caplog.text
            assert len(spool.file.set_aside()) == 1
            assert spool.file.set_aside()[0].name in caplog.text

    def test_what_was_damaged_under_another_process_is_set_aside_once(
        self, spool: Spool, path: Path
    ) -> None:
        other = Spool(path, SERVER)
        fill(spool, range(3_000))
        fill(other, [3_000])
        close(spool)
        close(other)
        damage(path, 12 * 4096)
        assert drained(other)[-1] == 3_000
        fill(spool, [5])
        assert drained(other) == [5]
        fill(other, [6])
        assert drained(spool) == [6]
        assert len(spool.file.set_aside()) == 1

    def test_a_process_that_has_the_damaged_file_open_goes_on_with_the_new_one(
        self, spool: Spool, path: Path
    ) -> None:
        others = [Spool(path, SERVER) for _ in range(2)]
        fill(spool, range(3_000))
        for other in others:
            fill(other, [3_000])
        close(spool)
        damage(path, 0, 100)
        fill(spool, [3_001])
        for id_, other in enumerate(others, start=3_002):
            fill(other, [id_])
            close(other)  # SQLite deletes the log when its last user closes it
        assert {*drained(others[0])} >= {3_001, 3_002, 3_003}

    def test_a_damaged_file_of_the_version_before_is_brought_over(
        self, spool: Spool, path: Path
    ) -> None:
        old_spool(path, ["here"] * 1_000)
        damage(path, 20 * 4096)
        spool.append([(DEED, 6)])
        assert len(drained(spool)) == 2
        assert spool.file.set_aside()

    def test_what_is_appended_before_the_rest_is_brought_over_comes_after_it(
        self, spool: Spool, path: Path, filled: Path
    ) -> None:
        shutil.copy(filled, path)
        damage(path, 0, 100)
        fill(spool, [9_999])
        other = Spool(path, SERVER)
        assert other.holds_marks()
        assert drained(other)[-1] == 9_999

    @pytest.mark.parametrize("rest", [0, 1, 100, 4096, 50_000])
    def test_a_truncated_file_holds_up_nothing(
        self, spool: Spool, path: Path, filled: Path, rest: int
    ) -> None:
        shutil.copy(filled, path)
        os.truncate(path, rest)
        fill(spool, [9_999])
        assert drained(spool)[-1] == 9_999

    @pytest.mark.parametrize("written", [b"", b"no database at all" * 1_000])
    def test_a_file_that_is_no_database_holds_up_nothing(
        self, spool: Spool, path: Path, written: bytes
    ) -> None:
        path.write_bytes(written)
        fill(spool, [7])
        assert drained(spool) == [7]
        assert [file.read_bytes() for file in spool.file.set_aside()] == [written] * bool(written)

    def test_a_file_with_another_name_that_is_no_database_is_left_alone(
        self, tmp_path: Path
    ) -> None:
        notes = tmp_path / "notes.txt"
        notes.write_text("shopping list" * 100)
        for _ in range(2):
            with pytest.raises(SpoolError, match="Name another file in BITMAPIST_SPOOL"):
                fill(Spool(notes, SERVER), [1])
        assert [*tmp_path.iterdir()] == [notes]

    def test_a_database_of_somebody_else_is_not_deleted(self, tmp_path: Path) -> None:
        database = tmp_path / "app.sqlite3"
        with sqlite3.connect(database) as db:
            db.execute("CREATE TABLE users (id INTEGER)")
        db.close()
        spool = Spool(database, SERVER)
        fill(spool, [1])
        assert drained(spool) == [1]
        assert database.exists()

    @pytest.mark.parametrize("ending", ["-wal", "-shm"])
    @pytest.mark.parametrize("how", ["deleted", "emptied", "garbage"])
    def test_a_damaged_log_holds_up_nothing(
        self, path: Path, tmp_path: Path, ending: str, how: str
    ) -> None:
        """The file as a process that was killed leaves it."""
        lived = tmp_path / "lived"
        lived.mkdir()
        spool = Spool(lived / path.name, SERVER)
        fill(spool, range(100))
        for name in ("", "-wal", "-shm"):
            shutil.copy(f"{spool.path}{name}", f"{path}{name}")
        beside = Path(f"{path}{ending}")
        if how == "deleted":
            beside.unlink()
        elif how == "emptied":
            os.truncate(beside, 0)
        else:
            damage(beside, beside.stat().st_size // 2)
        killed = Spool(path, SERVER)
        fill(killed, [101])
        found = drained(killed)
        assert found[-1] == 101
        if ending == "-shm":
            assert found == [*range(100), 101]

    @pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
    def test_a_file_that_is_deleted_under_its_users_is_noticed(
        self, spool: Spool, path: Path, ending: str
    ) -> None:
        other = Spool(path, SERVER)
        fill(spool, [1])
        fill(other, [2])
        Path(f"{path}{ending}").unlink()
        fill(spool, [3])
        fill(other, [4])
        assert drained(spool)[-2:] == [3, 4]

    def test_a_row_that_cannot_be_read_is_logged_and_counted(
        self, spool: Spool, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(spool, range(3))
        rows = [b"\xff\xfe", "[[1]]", '{"a": 1}']
        for id_, row in enumerate(rows):
            spool.append([(DEED, [10 + id_, 20 + id_])])
            with sqlite3.connect(path) as db:
                last = "(SELECT MAX(id) FROM spooled)"
                db.execute(f"UPDATE spooled SET marks = ? WHERE id = {last}", (row,))
            db.close()
        fill(spool, [3])
        for _ in range(2):  # what is tried again is not counted again
            with pytest.raises(ConnectionError):
                spool.drain(refuse, 1)
        assert drained(spool) == [0, 1, 2, 3]
        assert caplog.text.count("2 marks in the spool") == len(rows)
        assert spool.lost == 2 * len(rows)

    def test_the_oldest_damaged_files_go(self, spool: Spool, path: Path) -> None:
        for day in range(6):
            path.with_name(f"{path.name}.damaged-2026010{day}T000000Z").touch()
        path.write_bytes(b"no database at all")
        fill(spool, [1])
        assert drained(spool) == [1]
        kept = [file.name[-16:-1] for file in spool.file.set_aside()]
        assert kept[:2] == ["20260104T000000", "20260105T000000"]
        assert len(kept) == 3


class TestFork:
    def test_a_child_and_its_parent_go_on_at_once(self, path: Path) -> None:
        """Threads append and drain at the moment of each fork."""
        script = f"""
import os, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from flask_bitmapist.delivery import database
from test_spool import *
database._LOCK_WAIT = 3_600  # whoever finds a lock held for ever waits longer than this test may
spool = Spool(Path(sys.argv[1]), SERVER)
ends = threading.Event()
out = []
def append():
    for id_ in range(10_000, 10_000_000):
        if ends.is_set(): return
        fill(spool, [id_])
def drain():
    while not ends.is_set():
        spool.drain(lambda marks: out.extend(id_ for _, id_ in singles(marks)), 5)
threads = [threading.Thread(target=work) for work in (append, drain)]
for thread in threads: thread.start()
for child in range(40):
    if (pid := os.fork()) == 0:
        fill(spool, [child])
        spool.holds_marks()
        os._exit(0)
    fill(spool, [100 + child])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
ends.set()
for thread in threads: thread.join()
out += drained(spool)
assert {{*range(40), *range(100, 140)}} <= {{*out}}
assert [id_ for id_ in out if id_ >= 10_000] == [*range(10_000, max(out) + 1)]
"""
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, path], check=True, timeout=300
        )

    def test_a_child_does_not_keep_the_right_to_drain(self, spool: Spool) -> None:
        fill(spool, [1])
        ready, wake = os.pipe(), os.pipe()
        with spool.alone() as alone:
            assert alone
            child = os.fork()
            if child == 0:
                os.write(ready[1], b"x")
                os.read(wake[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
            with spool.alone() as again:
                assert not again
        with spool.alone() as alone:
            assert alone
        os.write(wake[1], b"x")
        os.waitpid(child, 0)
        for file in (*ready, *wake):
            os.close(file)


class TestSize:
    def test_the_file_is_gone_when_nothing_waits(self, spool: Spool, path: Path) -> None:
        assert not path.exists()
        for _ in range(2):
            fill(spool, range(10))
            assert path.exists()
            assert drained(spool) == [*range(10)]
            assert not [*path.parent.glob("*.sqlite3")]
            assert not [*path.parent.glob("*-wal")]

    def test_the_file_shrinks_when_others_still_wait(self, spool: Spool, path: Path) -> None:
        fill(Spool(path, Addresses(("other",), "other")), [1])
        fill(spool, range(5_000))
        assert path.stat().st_size > 500_000
        assert len(drained(spool)) == 5_000
        assert path.stat().st_size < 200_000

    def test_beyond_its_limit_the_oldest_marks_go(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        spool = Spool(path, SERVER, limit=1_000_000)
        fill(spool, range(12_000))
        assert caplog.text.count("BITMAPIST_SPOOL_SIZE") == 1
        # SQLite's log comes on top.
        assert path.stat().st_size < 1_100_000
        backlog = spool.backlog()
        found = drained(spool)
        assert found == [*range(12_000 - len(found), 12_000)]
        assert (len(found), spool.lost) == (backlog, 12_000 - len(found))
        assert len(found) > 4_000
        fill(spool, [1])
        assert drained(spool) == [1]

    def test_many_marks_of_one_kind_take_little_room(self, spool: Spool, path: Path) -> None:
        """Each is its id; marks of other kinds in between keep their place."""
        other = DEED._replace(event="f")
        spool.append([(DEED, id_) for id_ in range(10_000, 20_000)])
        spool.append([(DEED, 1), (other, 2), (DEED, 3), (DEED, [4, 5])])
        assert path.stat().st_size + Path(f"{path}-wal").stat().st_size < 400_000
        assert drained(spool) == [*range(10_000, 20_000), 1, 2, 3, 4, 5]

    def test_what_is_kept_apart_has_the_same_limit(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        spool = Spool(path, SERVER, limit=1_000_000)
        apart = Apart(spool)
        for first in range(0, 10_000, 100):
            apart.append([((DEED, id_), "refused") for id_ in range(first, first + 100)])
        assert caplog.text.count("BITMAPIST_SPOOL_SIZE") == 1
        (kept,) = apart.reasons().values()
        assert kept == 10_000 - spool.lost < 9_000
        assert [one.mark for one in apart.after(0, 1)] == [(DEED, 10_000 - kept)]
        fill(spool, [1])
        assert drained(spool) == [1]

    def test_what_was_sent_waits_again_in_its_old_place(self, spool: Spool, path: Path) -> None:
        proof = Proof("trips", 7, "origin")
        fill(spool, range(2_000))
        while spool.holds_marks():
            assert spool.drain(lambda marks: proof, trips=1)
        fill(spool, [5_000])
        assert spool.contents() == {"spooled", "sent"}
        first, second = spool.sent()
        assert first.proof == second.proof == proof
        assert spool.settle(lost=[second.row], done=[first.row]) == 1_000
        assert spool.backlog() == 1_001
        assert drained(spool) == [*range(1_000, 2_000), 5_000]
        assert not path.exists()

    def test_what_was_sent_and_cannot_be_read_contradicts_nothing(self, spool: Spool) -> None:
        """Another version may have written it."""
        fill(spool, [1])
        lost = Lost(0.0, [(DEED, 1), (DEED, 2)], time.time())
        time.sleep(0.001)
        spool.append([(DEED._replace(value=False), 2)])
        assert spool.drain(lambda marks: Proof("trips", 7, "origin"), trips=1)
        fill(spool, [3])
        assert spool.drain(lambda marks: Proof("trips", 8, "origin"), trips=1)
        last = "(SELECT MAX(id) FROM sent)"
        for text in ('{"marks": []}', "[", '[["e"]]'):
            spool.file.transact(
                lambda db, text=text: db.execute(  # type: ignore[misc]
                    f"UPDATE sent SET marks = ? WHERE id = {last}", (text,)
                )
            )
            assert [*spool.still_last(lost)] == [(DEED, 1)]

    def test_what_was_sent_may_have_gone_before_it_turns_out_to_be_lost(self, spool: Spool) -> None:
        """Another process makes room, or has begun a new file, between the look and the step."""
        fill(spool, [1, 2])
        assert spool.drain(lambda marks: Proof("trips", 7, "origin"), trips=1)
        (sent,) = spool.sent()
        spool.file.transact(lambda db: db.execute("DELETE FROM sent"))
        assert spool.settle(lost=[sent.row], done=[]) == 0
        assert not spool.contents()

    def test_what_was_sent_takes_no_room_from_what_waits(self, path: Path) -> None:
        spool = Spool(path, SERVER, limit=1_000_000)
        for id_ in range(600):
            fill(spool, [id_])
            assert spool.drain(lambda marks: Proof("trips", 7, "origin"), trips=1)
        assert len(spool.sent()) == 500
        fill(spool, range(9_000))
        assert len(spool.sent()) == 0
        assert spool.lost < 9_000

    def test_appends_share_a_connection(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Opening the file costs at least ten times what the append itself does."""
        opened: list[object] = []
        connect = sqlite3.connect

        def counted(*given: Any, **options: Any) -> sqlite3.Connection:
            opened.append(given)
            connection: sqlite3.Connection = connect(*given, **options)
            return connection

        monkeypatch.setattr(sqlite3, "connect", counted)
        fill(spool, range(10))
        assert len(opened) == 1
        close(spool)
        fill(spool, range(10))
        assert len(opened) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount a file system")
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs"]
    if subprocess.run([mount, *options, folder], check=False).returncode != 0:
        pytest.skip("this system mounts no file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_bsize


def fill_disk(spool: Spool) -> int:
    """Append until it fails; returns how many marks fit."""
    for first in range(0, 2_000_000, 100):
        try:
            spool.append([(DEED, [*range(first, first + 100)])])
        except SpoolError:
            return first
    raise AssertionError("there is always room")


class TestFullDisk:
    def test_a_spool_that_filled_its_disk_is_drained_and_gone(self, small_disk: Path) -> None:
        spool = Spool(small_disk / "bitmapist-spool.sqlite3", SERVER)
        fits = fill_disk(spool)
        (small_disk / "stuffing").write_bytes(b"x" * free(small_disk))
        assert fits > 10_000
        assert drained(spool) == [*range(fits)]
        assert not spool.path.exists()
        fill(spool, [1])
        assert drained(spool) == [1]

    def test_another_process_drains_it_after_a_restart(self, small_disk: Path) -> None:
        spool = Spool(small_disk / "bitmapist-spool.sqlite3", SERVER)
        fits = fill_disk(spool)
        close(spool)
        other = Spool(spool.path, SERVER)
        assert drained(other) == [*range(fits)]
        assert not spool.holds_marks()

    def test_in_a_read_only_folder_nothing_hangs(self, small_disk: Path) -> None:
        spool = Spool(small_disk / "bitmapist-spool.sqlite3", SERVER)
        fill(spool, range(3))
        close(spool)
        remount(small_disk, "ro")
        with pytest.raises(SpoolError):
            fill(spool, [4])
        with pytest.raises(SpoolError):
            spool.drain(lambda marks: None, 5)
        remount(small_disk, "rw")
        assert drained(spool) == [0, 1, 2]

    def test_a_limit_of_the_process_on_the_size_of_files_is_put_up_with(self, path: Path) -> None:
        script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_spool import *
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
spool = Spool(Path(sys.argv[1]), SERVER)
fits = fill_disk(spool)
assert fits > 20, fits
assert drained(spool) == [*range(fits)]
"""
        subprocess.run([sys.executable, "-c", script, path], check=True, timeout=120)


class TestServers:
    def test_two_clusters_that_share_a_file_get_their_own_marks(self, path: Path) -> None:
        a = Spool(path, Addresses(("a1", "a2", "a3"), "cluster"))
        b = Spool(path, Addresses(("b1", "b2"), "cluster"))
        fill(a, [1, 2])
        fill(b, [3])
        assert drained(b) == [3]
        assert drained(a) == [1, 2]

    def test_a_cluster_whose_nodes_have_changed_gets_its_marks(self, path: Path) -> None:
        fill(Spool(path, Addresses(("n5", "n6"), "cluster")), [1])
        fill(Spool(path, Addresses(("n1", "n6"), "cluster")), [2])
        fill(Spool(path, Addresses(("n2", "n3"), "cluster")), [3])
        assert drained(Spool(path, Addresses(("n0", "n1"), "cluster"))) == [1, 2]
        fill(Spool(path, Addresses(("n7", "n0"), "cluster")), [4])
        # Two that turn out to be one.
        assert drained(Spool(path, Addresses(("n3", "n7"), "cluster"))) == [3, 4]

    def test_sentinels_are_told_apart_though_they_watch_a_service_of_one_name(self) -> None:
        def named(*sentinels: tuple[str, int]) -> Addresses:
            return server_of(Sentinel(sentinels).master_for("ours", db=1))

        ours = named(("s1", 26379), ("s2", 26379))
        assert not {*ours.names} & {*named(("s3", 26379), ("s4", 26379)).names}
        assert {*ours.names} & {*named(("s2", 26379), ("s5", 26379)).names}
        other_database = Sentinel([("s1", 26379)]).master_for("ours", db=2)
        assert not {*ours.names} & {*server_of(other_database).names}
        assert ours.formerly == '["ours", null, null, null, 1]'

    def test_servers_are_told_apart_by_address_and_database_without_their_passwords(self) -> None:
        (name,) = server_of(Redis.from_url("redis://me:secret@there:6380/2")).names
        assert name == '[null, "there", 6380, null, 2]'

    @pytest.mark.parametrize("name", ["here", "cluster"])
    def test_what_the_version_before_has_spooled_is_delivered(self, path: Path, name: str) -> None:
        old_spool(path, [name])
        names = ("here",) if name == "here" else ("n1", "n2")
        spool = Spool(path, Addresses(names, name))
        assert spool.holds_marks()
        fill(spool, [6])
        assert spool.backlog() == 2
        assert drained(spool) == [5, 6]
        assert not path.exists()


def test_what_cannot_be_deleted_after_it_was_sent_is_sent_once(spool: Spool, path: Path) -> None:
    fill(spool, [1])
    time.sleep(0.1)  # longer than the clock stands still that stamps files
    assert spool.holds_marks()
    other = sqlite3.connect(path, isolation_level=None)
    sent: list[Settled] = []

    def write(marks: Sequence[Settled]) -> None:
        sent.extend(marks)
        if not other.in_transaction:
            other.execute("BEGIN IMMEDIATE")

    with within(0.1):
        assert spool.drain(write, trips=5)
    assert sent == [(DEED, 1)]
    assert not spool.holds_marks()
    other.execute("ROLLBACK")
    other.close()
    fill(spool, [2])
    assert drained(spool) == [2]
    assert not path.exists()


def test_a_signal_handler_that_marks_does_not_stop_its_thread(spool: Spool) -> None:
    failed: list[Exception] = []

    def mark(*_: object) -> None:
        try:
            fill(spool, [-1])
        except SpoolError as error:  # in the middle of an append: the mark waits in memory
            failed.append(error)

    before = signal.signal(signal.SIGALRM, mark)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        fill(spool, range(2_000))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = drained(spool)
    assert [id_ for id_ in found if id_ >= 0] == [*range(2_000)]
    assert failed or -1 in found


def promise(folder: Path, log: Path, *, writers: int, each: int, seed: int) -> None:
    """Writers append, one process drains, all are killed at random: nothing acknowledged goes."""
    chance = random.Random(seed)
    path = folder / "bitmapist-spool.sqlite3"
    acknowledged: set[int] = set()

    def start_drainer() -> Any:
        drainer = WARM.Process(target=keep_draining, args=(path, log))
        drainer.start()
        return drainer

    def write(first: int) -> None:
        left = range(first, first + each)
        while left:
            told, tells = WARM.Pipe(duplex=False)
            writer = WARM.Process(target=keep_appending, args=(path, left, tells))
            writer.start()
            tells.close()
            # Its reader is this thread, which kills it after some of them.
            until = chance.randrange(50, each // 10 + 50)
            with told, suppress(EOFError):
                for number in itertools.count(1):
                    id_ = told.recv()
                    acknowledged.update(range(id_, id_ + 10))
                    left = range(id_ + 10, left.stop)
                    if number == until:
                        writer.kill()
            writer.join()
            if writer.exitcode == 0:
                break

    threads = [threading.Thread(target=write, args=(each * n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    drainer = start_drainer()
    while any(thread.is_alive() for thread in threads):
        time.sleep(chance.uniform(0.2, 1.0))
        drainer.kill()
        drainer.join()
        drainer = start_drainer()
    for thread in threads:
        thread.join()
    spool = Spool(path, SERVER)
    eventually(lambda: not spool.holds_marks())
    drainer.kill()
    drainer.join()
    assert acknowledged
    assert acknowledged <= {int(line) for line in log.read_text().split()}


def test_a_hundred_thousand_marks_survive_the_death_of_their_processes(tmp_path: Path) -> None:
    promise(tmp_path, tmp_path / "log", writers=4, each=25_000, seed=1)


def test_on_a_disk_that_is_often_full_nothing_acknowledged_is_lost(
    small_disk: Path, tmp_path: Path
) -> None:
    promise(small_disk, tmp_path / "log", writers=3, each=10_000, seed=2)


@pytest.mark.parametrize("delivery", ["immediate", "background"])
class TestUnusable:
    """The spool is of no use, and the server comes and goes."""

    @pytest.fixture
    def tracker(
        self,
        mortal: MortalServer,
        small_disk: Path,
        delivery: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Tracker:
        # A mark that waited for the breaker would not be there in time.
        monkeypatch.setattr("flask_bitmapist.delivery.breaker._SHORTEST_BREAK", 3_600)
        monkeypatch.setattr("flask_bitmapist.delivery.breaker._LONGEST_BREAK", 3_600)
        options = {
            "BITMAPIST_REDIS_URL": mortal.url,
            "BITMAPIST_SPOOL": small_disk / "spool",
            "BITMAPIST_DELIVERY": delivery,
            "BITMAPIST_TIMEOUT": 10,
        }
        return FlaskBitmapist(Flask(__name__), options).tracker

    def test_in_a_read_only_folder_marks_go_on_when_the_server_does(
        self,
        mortal: MortalServer,
        tracker: Tracker,
        small_disk: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        remount(small_disk, "ro")
        mark_event("e", [1, 2], now=NOON)
        tracker.flush()
        mortal.kill()
        for id_ in (10, 11, 12):
            mark_event("e", id_, now=NOON)
            tracker.flush()
        assert tracker.stats().dropped == 3
        mortal.start()
        mark_event("e", [3, 4], now=NOON)
        eventually(lambda: mortal.ids() == [1, 2, 3, 4])
        tracker.flush()
        assert tracker.stats().sent == 4
        assert caplog.text.count("cannot be used") == 1
        remount(small_disk, "rw")
        mortal.kill()
        for id_ in (5, 6):
            mark_event("e", id_, now=NOON)
        tracker.flush()
        assert caplog.text.count("the spool works again; 3 marks were lost meanwhile") == 1
        mortal.start()
        eventually(tracker.flush)
        assert mortal.ids() == [*range(1, 7)]

    def test_on_a_full_disk_each_mark_arrives_waits_or_is_counted(
        self,
        mortal: MortalServer,
        tracker: Tracker,
        small_disk: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        mortal.kill()
        mark_event("e", range(100), now=NOON)
        tracker.flush()
        stuffing = small_disk / "stuffing"
        stuffing.write_bytes(b"x" * free(small_disk))
        for id_ in range(100, 400):
            mark_event("e", id_, now=NOON)
            if id_ % 50 == 0:
                tracker.flush()
        tracker.flush()
        figures = tracker.stats()
        assert figures.dropped > 0
        assert figures.backlog + figures.dropped == 400
        mortal.start()
        mark_event("e", range(400, 500), now=NOON)
        eventually(tracker.flush)
        assert {*range(100), *range(400, 500)} <= {*mortal.ids()}
        after = tracker.stats()
        assert (after.backlog, after.dropped) == (0, figures.dropped)
        assert after.sent + after.replayed + after.dropped == 500
        assert len(mortal.ids()) == 500 - after.dropped
        assert caplog.text.count("cannot be used") == 1
        assert not (small_disk / "spool").exists()

"""What is queued outlives its process."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import pytest

from flask_bitmapist.delivery.addresses import Addresses
from flask_bitmapist.delivery.journal import _SIZE, Journal, Page, adopt
from flask_bitmapist.delivery.queue import Queue
from flask_bitmapist.delivery.spool import Spool
from flask_bitmapist.marks import Deed, Settled, deed, singles

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no journal")

NOON = datetime(2026, 3, 14, 12)
SERVER = Addresses(("here", "there"), "here")


def what(event: str = "e", value: bool = True) -> Deed:
    return deed(event, value, NOON, False, False, "plain", True)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", SERVER)


def files(spool: Spool) -> list[Path]:
    return [*spool.path.parent.glob("*-queue-*")]


def adopted(spool: Spool) -> list[tuple[str, bool, int | str]]:
    """What is in the spool after adoption, in order."""
    adopt(spool)
    found: list[Settled] = []
    while spool.holds_marks():
        assert spool.drain(found.extend, trips=50)
    return [(done.event, done.value, id_) for done, id_ in singles(found)]


def leave(journal: Journal) -> None:
    """What the kernel does when the owner dies."""
    journal.leave()


def test_marks_of_a_dead_process_come_back_in_order(spool: Spool) -> None:
    journal = Journal.beside(spool)
    assert journal.page.add(what("a"), 7)
    assert journal.page.add(what("b"), "ünï")
    assert journal.page.add(what("a", False), 7)
    assert journal.page.add(what("c"), [1, 2, 3])
    before = journal.turn()
    assert journal.page.add(what("a"), 8)
    leave(journal)
    assert before is not journal.page
    assert adopted(spool) == [
        ("a", True, 7),
        ("b", True, "ünï"),
        ("a", False, 7),
        ("c", True, 1),
        ("c", True, 2),
        ("c", True, 3),
        ("a", True, 8),
    ]
    assert not files(spool)


def test_pages_are_read_in_the_order_in_which_they_were_written(spool: Spool) -> None:
    journal = Journal.beside(spool)
    for number in range(4):
        journal.page.add(what(), number)
        before = journal.turn()
        if number < 3:
            before.clear()
    journal.page.add(what(), 4)
    leave(journal)
    assert [id_ for _, _, id_ in adopted(spool)] == [3, 4]


def test_what_was_delivered_does_not_come_back(spool: Spool) -> None:
    journal = Journal.beside(spool)
    for id_ in range(1_000):
        journal.page.add(what(), id_)
    journal.turn().clear()
    journal.page.add(what("other"), "x" * 300)
    leave(journal)
    assert adopted(spool) == [("other", True, "x" * 300)]


def test_the_journal_of_a_living_process_is_left_alone(spool: Spool) -> None:
    journal = Journal.beside(spool)
    journal.page.add(what(), 1)
    assert adopted(spool) == []
    assert files(spool)
    journal.end()
    assert not files(spool)


def test_a_journal_for_another_server_is_left_alone(spool: Spool, tmp_path: Path) -> None:
    journal = Journal.beside(spool)
    journal.page.add(what(), 1)
    leave(journal)
    assert adopted(Spool(spool.path, Addresses(("elsewhere",), "elsewhere"))) == []
    assert adopted(Spool(spool.path, Addresses(("moved", "there"), "moved"))) == [("e", True, 1)]


def test_a_late_record_on_a_cleared_page_is_no_mark_of_another_event(spool: Spool) -> None:
    journal = Journal.beside(spool)
    late = journal.page
    late.add(what("a"), 1)
    journal.turn().clear()
    journal.turn().clear()
    journal.page.add(what("b"), 2)
    late.add(what("a"), 3)
    late.add(what("a"), 4)
    journal.page.add(what("b"), 5)
    leave(journal)
    assert adopted(spool) == [("b", True, 2), ("b", True, 5)]


class Noting(mmap.mmap):
    """Memory that notes how much of it is overwritten, and in which somebody else writes late."""

    def __init__(self, *made: int) -> None:
        self.overwritten = 0
        self.late: Callable[[], object] = lambda: None

    def __setitem__(self, place: Any, value: Any) -> None:
        self.overwritten += len(value)
        super().__setitem__(place, value)

    def seek(self, position: int, whence: Literal[0, 1, 2, 3, 4] = 0) -> None:
        late, self.late = self.late, lambda: None
        late()
        super().seek(position, whence)


def noted_page() -> tuple[Page, Noting]:
    memory = Noting(-1, 2**20)
    memory.seek(8)
    return Page(memory, 0, itertools.count(1)), memory


def test_as_much_is_cleared_as_was_written() -> None:
    page, memory = noted_page()
    page.add(what(), 1)
    memory.overwritten, written = 0, memory.tell()
    page.clear()
    assert memory.overwritten < written
    assert not page.is_used


def test_what_comes_while_a_page_is_cleared_is_cleared_too() -> None:
    page, memory = noted_page()
    page.add(what(), 1)
    memory.late = lambda: page.add(what("late"), "text" * 100)
    page.clear()
    assert not memory[8:].strip(b"\0")


def test_a_full_page_takes_nothing_more(spool: Spool) -> None:
    journal = Journal.beside(spool)
    queued = 0
    while journal.page.add(what(), queued):
        queued += 1
    assert queued > 50_000
    leave(journal)
    assert [id_ for _, _, id_ in adopted(spool)] == [*range(queued)]


def test_a_damaged_journal_is_told_and_hides_no_other(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.beside(spool)
    for id_ in range(10):
        journal.page.add(what(), id_)
    leave(journal)
    (damaged,) = files(spool)
    content = bytearray(damaged.read_bytes())
    content[30:60] = b"\xff" * 30
    damaged.write_bytes(content)
    other = Journal.beside(spool)
    other.page.add(what(), 77)
    leave(other)
    assert ("e", True, 77) in adopted(spool)
    assert "cannot be read" in caplog.text
    assert not files(spool)


def test_a_process_that_begins_takes_over_what_takes_no_time(spool: Spool) -> None:
    for marks in (50_000, 100, 5):
        journal = Journal.beside(spool)
        for id_ in range(marks):
            journal.page.add(what(), id_)
        leave(journal)
    queue = Queue(spool)
    queue.add(what(), 1)
    assert spool.backlog() == 105
    assert len(files(spool)) == 2, "the long one, and that of the queue"
    adopt(spool)
    assert spool.backlog() == 50_105


def test_a_link_in_place_of_a_journal_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    spool.path.with_name(f"{spool.path.name}-queue-1-x").symlink_to(precious)
    assert adopted(spool) == []
    assert precious.read_text() == "precious"


def test_the_marks_for_a_cluster_of_hundreds_of_nodes_are_not_those_for_another(
    tmp_path: Path,
) -> None:
    nodes = tuple(
        f'["cluster", "node-{number}.of-a-cluster.example:6379"]' for number in range(300)
    )
    large = Spool(tmp_path / "spool", Addresses(nodes, "cluster"))
    journal = Journal.beside(large)
    assert journal.page.add(what(), 1)
    leave(journal)
    assert adopted(Spool(large.path, SERVER)) == []
    assert adopted(large) == [("e", True, 1)]


def test_a_mark_that_another_thread_queues_at_the_end_is_left_to_others(spool: Spool) -> None:
    queue = Queue(spool)
    queue.put([(what(), 1)])
    assert queue.drain(lambda marks: None)
    # It has written the mark, and not put it into the queue yet.
    assert queue._begun().page.add(what(), 2)
    queue.end()
    assert len(files(spool)) == 1
    assert queue.drain(lambda marks: None)
    queue.end()
    assert not files(spool)


def test_nor_does_one_that_the_disk_does_not_give_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.beside(spool)
    assert journal.page.add(what(), 1)
    leave(journal)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", fail)
        assert adopted(spool) == []
    assert adopted(spool) == [("e", True, 1)]


def test_a_journal_that_was_cut_off_holds_up_nothing(spool: Spool) -> None:
    for length in (0, 100, _SIZE, _SIZE + 100, 2 * _SIZE):
        journal = Journal.beside(spool)
        assert journal.page.add(what(), 1)
        (path,) = files(spool)
        os.truncate(path, length)
        leave(journal)
        assert adopted(spool) == ([("e", True, 1)] if length >= _SIZE else [])
        assert not files(spool)


def test_two_processes_do_not_adopt_the_same_journal_twice(spool: Spool) -> None:
    for number in range(40):
        journal = Journal.beside(spool)
        journal.page.add(what(), number)
        leave(journal)
    others = [Spool(spool.path, SERVER) for _ in range(4)]
    threads = [threading.Thread(target=adopt, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id_ for _, _, id_ in adopted(spool)) == [*range(40)]


def test_a_child_leaves_its_parents_queue_alone(spool: Spool) -> None:
    queue = Queue(spool)
    queue.add(what(), 1)
    child = os.fork()
    if not child:
        queue.begin_anew()
        queue.add(what(), 2)
        os._exit(0)
    os.waitpid(child, 0)
    assert adopted(spool) == [("e", True, 2)], "the parent lives, and keeps what it queued"
    got: list[Settled] = []
    queue.drain(got.extend)
    assert [*singles(got)] == [(what(), 1)]
    queue.end()
    assert not files(spool)


def test_where_no_file_can_be_made_marks_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    queue = Queue(Spool(tmp_path / "file" / "spool", SERVER))
    for id_ in range(3):
        assert queue.add(what(), id_)
    got: list[Settled] = []
    assert queue.drain(got.extend)
    assert [id_ for _, id_ in singles(got)] == [0, 1, 2]
    assert caplog.text.count("no journal can be made") == 1


def interrupted(call: Callable[[], object], step: int, act: Callable[[], None]) -> int:
    """Make the `call`, and `act` before the given step of the interpreter in the queue's code.

    :returns: how many steps there were before it.
    """
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if not frame.f_code.co_filename.endswith(("queue.py", "journal.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if steps == step:
                sys.settrace(None)
                act()
            steps += 1
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(tracing)
    return steps


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that is copied quickly."""
    monkeypatch.setattr("flask_bitmapist.delivery.journal._SIZE", mmap.ALLOCATIONGRANULARITY)


def in_journal(spool: Spool) -> set[tuple[str, bool, int | str]]:
    """What would be adopted if the only process were killed now."""
    (path,) = files(spool)
    copy = Spool(spool.path.with_name("copy"), SERVER)
    spool.path.with_name("copy-queue-1-x").write_bytes(path.read_bytes())
    return {*adopted(copy)}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("drains", [1, 2])
def test_whenever_another_thread_drains_a_mark_is_delivered_or_in_the_journal(
    spool: Spool, drains: int
) -> None:
    late = what("late"), 7
    step = 0
    while True:
        delivered: list[Settled] = []
        queue = Queue(spool)
        queue.add(what(), 0)

        def drain(queue: Queue = queue, delivered: list[Settled] = delivered) -> None:
            for _ in range(drains):
                queue.add(what(), 5)
                queue.drain(delivered.extend)

        if interrupted(lambda queue=queue: queue.add(*late), step, drain) <= step:  # type: ignore[misc]
            break
        assert late in delivered or ("late", True, 7) in in_journal(spool)
        while queue.drain(delivered.extend):  # what came to a page that was cleared already, too
            pass
        assert late in delivered
        queue.end()
        step += 1
    assert step > 50


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("is_draining", [False, True])
def test_whenever_another_thread_drains_marks_that_move_are_kept_or_in_the_journal(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, is_draining: bool
) -> None:
    """:param is_draining: since before they begin to move."""
    monkeypatch.setattr("flask_bitmapist.delivery.queue.BATCH", 1)
    marks = [(what(), id_) for id_ in range(3)]
    step = 0
    while True:
        queue = Queue(spool)
        kept: list[Settled] = []
        may_end, delivers = threading.Event(), threading.Event()
        for mark in marks:
            queue.add(*mark)

        def keep(moved: Sequence[Settled], kept: list[Settled] = kept) -> bool:
            kept += moved
            return True

        def deliver(
            moved: Sequence[Settled],
            kept: list[Settled] = kept,
            delivers: threading.Event = delivers,
            may_end: threading.Event = may_end,
        ) -> None:
            delivers.set()
            assert may_end.wait(10)
            kept += moved

        drainer = threading.Thread(target=queue.drain, args=(deliver,))

        def drain(
            drainer: threading.Thread = drainer,
            kept: list[Settled] = kept,
            may_end: threading.Event = may_end,
        ) -> None:
            if not is_draining:
                drainer.start()
            may_end.set()
            drainer.join(0.005)
            held = in_journal(spool)
            assert all(mark in kept or ("e", True, mark[1]) in held for mark in marks)

        if is_draining:
            drainer.start()
            assert delivers.wait(10)
        steps = interrupted(lambda queue=queue, keep=keep: queue.move(keep), step, drain)  # type: ignore[misc]
        may_end.set()
        if drainer.ident is not None:
            drainer.join()
        assert sorted(kept) == marks
        queue.end()
        if steps <= step:
            break
        step += 1
    assert step > 50


def test_what_a_full_spool_does_not_take_stays_queued(spool: Spool) -> None:
    queue = Queue(spool)
    for id_ in range(3):
        queue.add(what(), id_)
    assert not queue.move(lambda marks: False)
    assert {id_ for _, _, id_ in in_journal(spool)} == {0, 1, 2}
    queue.add(what(), 3)
    got: list[Settled] = []
    assert queue.drain(got.extend)
    assert [id_ for _, id_ in got] == [0, 1, 2, 3]


def test_after_a_full_queue_has_moved_there_is_room_again(spool: Spool) -> None:
    queue = Queue(spool)
    for _ in range(3):
        id_ = 0
        while queue.add(what(), id_):
            id_ += 1
        assert id_ > 50_000
        kept: list[Settled] = []
        assert queue.move(lambda marks, kept=kept: kept.extend(marks) is None)  # type: ignore[misc]
        assert len(kept) == id_
    assert not in_journal(spool)


def test_a_drain_within_a_drain_clears_nothing_that_is_still_queued(spool: Spool) -> None:
    """As a signal handler flushes that interrupts a flush."""
    queue = Queue(spool)
    delivered: list[Settled] = []

    def deliver(marks: Sequence[Settled]) -> None:
        if not delivered:
            delivered.append((what(), 0))
            queue.add(what(), 2)
            queue.drain(delivered.extend)
            queue.add(what(), 3)
        delivered.extend(marks)

    queue.add(what(), 1)
    queue.drain(deliver)
    assert {id_ for _, id_ in delivered} == {0, 1, 2}
    assert ("e", True, 3) in in_journal(spool)


def test_what_is_moved_does_not_overtake_what_is_being_delivered(spool: Spool) -> None:
    """The server turns out not to take the latter: it is kept when the former is."""
    queue = Queue(spool)
    kept: list[Settled] = []

    def keep(marks: Sequence[Settled]) -> bool:
        kept.extend(marks)
        return True

    def deliver(marks: Sequence[Settled]) -> None:
        if (what(), 1) in marks:
            queue.add(what(value=False), 1)
            queue.add(what("other"), 1)
            assert queue.move(keep, [(what(), 2), (what(value=False), 2)])
        keep(marks)

    queue.add(what(), 1)
    queue.drain(deliver)
    last = {(done.event, id_): done.value for done, id_ in kept}
    assert last == {("e", 1): False, ("e", 2): False, ("other", 1): True}
    assert kept.count((what("other"), 1)) == 1  # which undoes nothing


def test_no_value_of_a_dimension_overtakes_another_one(spool: Spool) -> None:
    def value(choice: str) -> Deed:
        return deed("plan", True, None, False, False, "plain", True, None, choice)

    queue = Queue(spool)
    kept: list[Settled] = []

    def keep(marks: Sequence[Settled]) -> bool:
        kept.extend(marks)
        return True

    def deliver(marks: Sequence[Settled]) -> None:
        if (value("free"), 1) in marks:
            assert queue.move(keep, [(value("pro"), 1)])
        keep(marks)

    queue.add(value("free"), 1)
    queue.drain(deliver)
    assert kept[-1] == (value("pro"), 1)


def test_the_spool_may_have_any_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "marks [a] *", SERVER)
    journal = Journal.beside(spool)
    assert journal.page.add(what(), 5)
    leave(journal)
    assert adopted(spool) == [("e", True, 5)]


@pytest.mark.parametrize("cut", range(1, 45, 4))
def test_a_record_that_was_not_finished_is_no_mark(spool: Spool, cut: int) -> None:
    journal = Journal.beside(spool)
    assert journal.page.add(what(), 5)
    assert journal.page.add(what(), "a text id, of which the end is missing")
    leave(journal)
    (path,) = files(spool)
    content = path.read_bytes()
    end = content.rindex(b"missing") + len(b"missing")
    path.write_bytes(content[: end - cut] + bytes(cut) + content[end:])
    assert adopted(spool) == [("e", True, 5)]


def test_what_is_queued_from_many_threads_is_always_in_the_queue_or_the_journal(
    spool: Spool,
) -> None:
    """The journal is copied at random moments, as a killed process would leave it."""
    queue = Queue(spool)
    queue.add(what(), 10**9)
    (path,) = files(spool)
    accepted: list[list[int]] = [[] for _ in range(4)]
    delivered: list[int] = []
    ends = threading.Event()

    def produce(number: int) -> None:
        for id_ in range(number, 40_000, 4):
            while not queue.add(what(), id_):
                time.sleep(0.001)
            accepted[number].append(id_)

    def deliver(marks: Sequence[Settled]) -> None:
        delivered.extend(int(id_) for _, id_ in singles(marks))

    def consume() -> None:
        while not ends.is_set() or queue:
            queue.drain(deliver)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        producers = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
        consumer = threading.Thread(target=consume)
        for thread in (*producers, consumer):
            thread.start()
        for _ in range(30):
            time.sleep(0.005)
            promised = {id_ for part in accepted for id_ in [*part]}
            left = spool.path.with_name("copy-queue-1-x")
            left.write_bytes(path.read_bytes())
            done = {*delivered}
            copied = Spool(spool.path.with_name("copy"), SERVER)
            held = {id_ for _, _, id_ in adopted(copied)}
            assert promised <= held | done
    finally:
        ends.set()
        for thread in (*producers, consumer):
            thread.join()
        sys.setswitchinterval(interval)
    assert {*range(40_000)} <= {*delivered}


KILLED = """
    import os, sys
    from datetime import datetime
    from pathlib import Path
    from flask_bitmapist.delivery.addresses import Addresses
    from flask_bitmapist.delivery.queue import Queue
    from flask_bitmapist.delivery.spool import Spool
    from flask_bitmapist.marks import deed, singles

    what = deed("e", True, datetime(2026, 3, 14, 12), False, False, "plain", True)
    queue = Queue(Spool(Path(sys.argv[1]), Addresses(("here",), "here")))
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)

    def deliver(marks):
        os.write(log, "".join(f"{id_}\\n" for _, id_ in singles(marks)).encode())

    for id_ in range(10**9):
        while not queue.add(what, id_):
            queue.drain(deliver)
        sys.stdout.write(f"{id_}\\n")
        sys.stdout.flush()
        if not id_ % 500:
            queue.drain(deliver)
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    for attempt in range(5):
        path, log = tmp_path / f"spool{attempt}", tmp_path / f"log{attempt}"
        log.touch()
        arguments = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(log)]
        with (
            (tmp_path / "acknowledged").open("wb") as acknowledged,
            subprocess.Popen(arguments, stdout=acknowledged) as process,
        ):
            while log.stat().st_size < 2_000 + random.randrange(20_000):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        told = (tmp_path / "acknowledged").read_text().rpartition("\n")[0].split()
        delivered = {*log.read_text().rpartition("\n")[0].split()}
        kept = {str(id_) for _, _, id_ in adopted(Spool(path, SERVER))}
        assert told
        assert {*told} <= delivered | kept

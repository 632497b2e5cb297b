"""What is done outside of requests is done once a thread can be had, and waited for at the end."""

from __future__ import annotations

import atexit
import threading

import pytest

from flask_bitmapist.later import Later


def test_where_no_thread_can_start_a_task_waits_until_one_can(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    later = Later(done.append, "count")

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", fail)
        later.submit(1)
        assert not later.wait(None)
    assert "cannot count yet: can't start new thread" in caplog.text
    assert later.wait(None)
    later.submit(2)
    assert later.wait(None)
    assert done == [1, 2]


def test_a_process_that_has_much_to_do_remembers_one_ending() -> None:
    later = Later(lambda *task: None, "do nothing")
    before = atexit._ncallbacks()
    for number in range(10):
        later.submit(number)
        assert later.wait(None)
        while later._thread is not None:
            pass
    assert atexit._ncallbacks() == before

"""An import marks each line that can be marked, and puts the others aside with the reason."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from flask_bitmapist.maintenance import importing
from flask_bitmapist.maintenance.importing import Columns, Import, Imported
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.tracker import Tracker

from .bits import bits_for, bits_of

LOG = Columns("what", "who", "when")
Read = Callable[..., Imported]


@pytest.fixture
def read(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Imports a text."""
    monkeypatch.setattr(importing, "PAGE", 3)

    def read(text: str | bytes, form: str = "csv", run: Any = None, **options: Any) -> Imported:
        file = tmp_path / f"log.{form}"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        options = {"columns": LOG, "rejects": tmp_path / "rejects.csv", **options}
        return Import(tracker, str(file), form, **options).run(**(run or {}))

    return read


@pytest.fixture
def rejects(tmp_path: Path) -> Callable[[], list[tuple[int, str]]]:
    """The numbers and texts of the lines that were put aside."""

    def listed() -> list[tuple[int, str]]:
        with (tmp_path / "rejects.csv").open(newline="", errors="surrogateescape") as file:
            return [(int(row["line"]), row["text"]) for row in csv.DictReader(file)]

    return listed


def test_lines_are_marked_at_their_moments(read: Read, tracker: Tracker) -> None:
    done = read(
        "when,who,else,what\n"
        "2024-03-01T10:00,1,x,song\n"
        '2024-03-02 23:30:00+00:00,2,"y,z",song\n'
        "1709251200,3,,song\n"  # 2024-03-01 in UTC
        "2024-03-05,3,,album\n"
    )
    song = [(1, datetime(2024, 3, 1)), (2, datetime(2024, 3, 2)), (3, datetime(2024, 3, 1))]
    assert bits_of(tracker) == bits_for("song", song) | bits_for(
        "album", [(3, datetime(2024, 3, 5))]
    )
    assert done == Imported(4, 4, 0, "", date(2024, 3, 1), date(2024, 3, 5))


def test_json_lines(read: Read, tracker: Tracker) -> None:
    done = read(
        '{"who": "ada", "when": 1709251200.5, "x": []}\n\n{"when": "2024-03-01", "who": "bob"}\n',
        "jsonl",
        event="named",
    )
    day = datetime(2024, 3, 1)
    assert bits_of(tracker) == bits_for("named", [("ada", day), ("bob", day)])
    assert done.marked == 2


BAD = b"""what,who,when
song,1,2024-03-01
song,,2024-03-01
song,2,yesterday
song,None,2024-03-01
song,4
"song,5,2024-03-01
song,6,2024-03-01
song,7,2024-03-01,more
 song,8,2024-03-01
song,ada,2024-03-01
song,99999999999,2024-03-01
song,caf\xe9,2024-03-01
song,9,2024-03-01
"""


def test_bad_lines_are_put_aside_and_the_others_are_marked(
    read: Read, tracker: Tracker, rejects: Callable[[], list[tuple[int, str]]]
) -> None:
    done = read(BAD)
    day = datetime(2024, 3, 1)
    assert bits_of(tracker) == bits_for("song", [(1, day), (6, day), (9, day)])
    assert (done.lines, done.marked, done.rejected) == (13, 3, 10)
    text = BAD.decode(errors="surrogateescape").splitlines()
    bad = [3, 4, 5, 6, 7, 9, 10, 11, 12, 13]
    assert rejects() == [(number, text[number - 1]) for number in bad]


def test_bad_json_is_put_aside(read: Read, rejects: Callable[[], list[tuple[int, str]]]) -> None:
    good = '{"who": 1, "when": "2024-03-01", "what": "e"}'
    bad = ["{", "[]", "7", "[" * 100_000, '{"who": true, "when": "2024-03-01", "what": "e"}',
           '{"who": 1, "when": null, "what": "e"}', '{"who": 1, "when": 1e99, "what": "e"}',
           '{"who": 1, "when": "2024-03-01", "what": 7}', '{"when": "2024-03-01", "what": "e"}',
           '{"who": "\\ud800", "when": "2024-03-01", "what": "e"}']  # fmt: skip
    done = read("\n".join([good, *bad, good]), "jsonl")
    assert (done.marked, done.rejected) == (2, len(bad))
    assert [number for number, _ in rejects()] == [*range(2, 2 + len(bad))]


def test_each_reason_is_told(read: Read, tmp_path: Path) -> None:
    read(BAD)
    with (tmp_path / "rejects.csv").open(newline="", errors="surrogateescape") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    for reason, part in zip(
        reasons,
        ["'' identifies nobody", "'yesterday' is no time", "identifies nobody", "2 values for 3",
         "values for 3", "4 values for 3", "cannot name an event", "plain ids",
         "above BITMAPIST_MAX_ID", "cannot be stored"],
        strict=True,
    ):  # fmt: skip
        assert part in reason


def test_texts_that_look_like_numbers_follow_what_the_event_has(
    read: Read, tracker: Tracker
) -> None:
    tracker.record([("named", "ada"), ("other", 5)])
    done = read("what,who,when\nnamed,7,2024-03-01\nother,7,2024-03-01\n")
    assert done.marked == 2
    assert bits_of(tracker)["trackist_named_2024-3-1"] == {"7"}
    assert bits_of(tracker)["trackist_other_2024-3-1"] == {7}
    read("what,who,when\nnew,7,2024-03-01\n", has_text_ids=True)
    assert bits_of(tracker)["trackist_new_2024-3-1"] == {"7"}


def test_a_run_that_is_stopped_goes_on_after_the_line_that_it_names(
    read: Read, tracker: Tracker, rejects: Callable[[], list[tuple[int, str]]]
) -> None:
    days = [datetime(2024, 3, 1), *(datetime(2024, 3, day) for day in range(1, 9))]
    text = "what,who,when\n" + "".join(
        f"e,{'bad' if day.day in (2, 7) else day.day},{day.date()}\n" for day in days[1:]
    )
    text = text.replace("e,bad", "e,-1")

    def press_a_key(done: Imported) -> None:
        if done.lines >= 4:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError) as stopped:
        read(text, run={"told": press_a_key})
    assert stopped.value.after == 7
    rest = read(text, run={"after": stopped.value.after})
    assert (rest.lines, rest.rejected) == (2, 1)
    good = [(day.day, day) for day in days[1:] if day.day not in (2, 7)]
    assert bits_of(tracker) == bits_for("e", good)
    assert [number for number, _ in rejects()] == [3, 8]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_file_without_the_columns_is_an_error(text: str, read: Read) -> None:
    with pytest.raises(ValueError, match="the file is empty|there is no column"):
        read(text)


def test_a_file_that_is_no_export_has_the_usual_columns(read: Read, tracker: Tracker) -> None:
    assert read("event,user,time\nsong,1,2024-03-01\n", columns=None).marked == 1


@pytest.mark.parametrize("before", ["", "\n", "no JSON\n"])
def test_json_lines_that_are_no_export_have_the_usual_columns(
    read: Read, tracker: Tracker, before: str
) -> None:
    line = '{"event": "song", "user": 1, "time": "2024-03-01"}\n'
    assert read(before + line, "jsonl", columns=None).marked == 1
    assert bits_of(tracker) == bits_for("song", [(1, datetime(2024, 3, 1))])


def test_a_dry_run_tells_the_same_and_marks_nothing(read: Read, tracker: Tracker) -> None:
    told = read(BAD, run={"dry": True})
    assert bits_of(tracker) == {}
    assert (told.lines, told.marked, told.rejected) == (13, 3, 10)


def test_a_quoted_value_may_have_lines(read: Read, tracker: Tracker) -> None:
    done = read('what,who,when\nsong,"a\nb",2024-03-01\nsong,c,2024-03-01\n')
    assert done.marked == 2
    assert bits_of(tracker)["trackist_song_2024-3-1"] == {"a\nb", "c"}

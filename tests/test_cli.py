"""``flask bitmapist ...``, by hand: tables, JSON, CSV, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import bitmapist
import click
import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from months import write_months

from flask_bitmapist import (
    DayEvents,
    FlaskBitmapist,
    analytics,
    mark_dimension,
    mark_event,
    mark_unique,
)
from flask_bitmapist.cli import commands
from flask_bitmapist.tracker import Tracker

MONDAY = datetime(2026, 3, 9)


@pytest.fixture
def runner(app: Flask, tracker: Tracker) -> FlaskCliRunner:
    """Three sign up in one week, two of them come back in the next; one of them is premium."""
    mark_event("user:created", [1, 2, 3], now=MONDAY)
    mark_event("user:logged_in", [1, 2, 3], now=MONDAY)
    mark_event("user:logged_in", [1, 2], now=MONDAY.replace(day=16))
    mark_event("user:upgraded", 2, now=MONDAY.replace(day=17))
    mark_unique("user:premium", 2)
    return app.test_cli_runner()


def output(runner: FlaskCliRunner, *arguments: str) -> str:
    done = runner.invoke(args=["bitmapist", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_events_lists_events_and_flags(runner: FlaskCliRunner, tracker: Tracker) -> None:
    mark_event("user:logged_in", [1, 2])
    lines = {line[0]: line[1:] for line in words(output(runner, "events"))}
    assert lines["user:logged_in"][1] == "2"
    assert lines["flag:user:premium"] == ["1"]
    told = json.loads(output(runner, "events", "--json"))
    assert {event["event"]: event["today"] for event in told["events"]}["user:logged_in"] == 2


def test_a_breakdown_has_the_rows_of_its_parts_below_those_of_the_whole(
    runner: FlaskCliRunner,
) -> None:
    mark_dimension("user:plan", [1, 2], "pro")
    asked = ("--by", "week", "--start", "2026-03-09", "--end", "2026-03-16")
    told = output(runner, "show", "user:logged_in", "--breakdown", "user:plan", *asked)
    assert [line.split()[:4] for line in told.splitlines()[1:] if line] == [
        ["(all)", "2026-03-09", "3", "█" * 40],
        ["(all)", "2026-03-16", "2", "█" * 27],
        ["pro", "2026-03-09", "2", "█" * 40],
        ["pro", "2026-03-16", "2", "█" * 40],
        ["(no", "value)", "2026-03-09", "1"],
        ["(no", "value)", "2026-03-16", "0"],
    ]
    flags = ("--breakdown", "flag:user:premium", "--breakdown", "user:upgraded")
    window = ("--by", "week", "--within", "4", "--end", "2026-03-17", *flags)
    told = output(runner, "stickiness", "user:logged_in", "--csv", *window)
    assert told.splitlines()[0] == "value,periods,users"
    assert "user:upgraded,1,1" in told.splitlines()
    assert json.loads(output(runner, "stickiness", "user:logged_in", "--json", *window))["parts"]


def test_a_breakdown_by_the_values_of_then(runner: FlaskCliRunner, tracker: Tracker) -> None:
    months = {"2026-03": {"free": [1]}, "2026-04": {"pro": [1]}}
    write_months(tracker.redis, "user:plan", months, {"pro": [1, 2]})
    asked = ("--by", "week", "--end", "2026-03-16", "--rows", "1", "--breakdown", "user:plan")
    for as_of, header, parts in (
        ("now", "value", ["(all),2", "pro,2", "free,0", "(no value),0"]),
        ("then", "value_then", ["(all),2", "pro,1", "free,1", "(no value),0"]),
    ):
        told = output(runner, "show", "user:logged_in", *asked, "--csv", "--as-of", as_of)
        lines = [line.split(",") for line in told.splitlines()]
        assert lines[0][0] == header
        assert [f"{line[0]},{line[2]}" for line in lines[1:]] == parts
    refused = runner.invoke(args=["bitmapist", "show", "user:logged_in", "--as-of", "then"])
    assert refused.exit_code == 2
    assert "is asked of the values of a dated dimension" in refused.output


def test_show_draws_a_trend(runner: FlaskCliRunner) -> None:
    text = output(
        runner, "show", "user:logged_in", "--by", "week", "--start", "2026-03-09", "--end",
        "2026-03-22",
    )  # fmt: skip
    assert words(text)[1:] == [
        ["2026-03-09", "3", "█" * 40],
        ["2026-03-16", "2", "█" * 27],
    ]


def test_events_tells_of_a_day_that_is_over(runner: FlaskCliRunner) -> None:
    header, *rows = words(output(runner, "events", "--end", "2026-03-16"))
    assert header[:4] == ["event", "30", "days", "2026-03-16"]
    assert {row[0]: row[2:] for row in rows[:3]} == {
        "user:created": ["0", "0", "3", "3"],
        "user:logged_in": ["2", "2", "3", "3"],
        "user:upgraded": ["0", "1", "1", "1"],
    }
    assert analytics.overview(end=MONDAY).events[0].today == 3
    tomorrow = f"{datetime.now(UTC) + timedelta(days=2):%F}"
    refused = runner.invoke(args=["bitmapist", "events", "--end", tomorrow])
    assert refused.exit_code == 2
    assert f"up to today, {datetime.now(UTC):%F}, not {tomorrow}" in refused.output


def test_users_lists_ids_as_the_application_knows_them(runner: FlaskCliRunner) -> None:
    arguments = ("users", "user:logged_in - flag:user:premium", "--at", "2026-03-16")
    assert output(runner, *arguments, "--csv").split() == ["id", "1"]
    assert json.loads(output(runner, *arguments, "--json")) == [1]


def test_users_of_a_range_are_those_of_any_of_its_periods(runner: FlaskCliRunner) -> None:
    for over in ("2026-03-09 to 2026-03-22", "2026-03"):
        found = output(runner, "users", "user:logged_in", "--over", over, "--csv").split()
        assert found == ["id", "1", "2", "3"]
    refused = runner.invoke(
        args=["bitmapist", "users", "a", "--over", "2026", "--at", "2026-03-16"]
    )
    assert refused.exit_code == 2
    assert "give --at or --over, not both" in refused.output


def test_retention_shows_rates_and_tells_numbers(runner: FlaskCliRunner) -> None:
    arguments = (
        "retention", "user:created", "user:logged_in", "--start", "2026-03-09", "--end",
        "2026-03-10", "--periods", "1",
    )  # fmt: skip
    assert words(output(runner, *arguments)) == [
        ["period", "size", "+0", "+1"],
        ["average,", "%", "3", "100.0", "66.7"],
        ["2026-03-09", "3", "100.0", "66.7"],
    ]
    told = json.loads(output(runner, *arguments, "--json"))
    assert [cell["users"] for cell in told["rows"][0]["cells"]] == [3, 2]


def test_lifecycle_stickiness_funnel_and_timeline_answer(runner: FlaskCliRunner) -> None:
    march = ("--start", "2026-03-09", "--end", "2026-03-22")
    lifecycle = words(output(runner, "lifecycle", "user:logged_in", "--by", "week", *march))
    assert lifecycle[1:] == [
        ["2026-03-09", "3", "0", "0", "0"],
        ["2026-03-16", "0", "2", "0", "1"],
    ]
    sticky = output(runner, "stickiness", "user:logged_in", "--within", "14", "--end", "2026-03-22")
    assert words(sticky)[1:3] == [["1", "1", "33.3"], ["2", "2", "66.7"]]
    steps = ("user:created", "user:logged_in", "user:upgraded")
    rows = list(csv.DictReader(io.StringIO(output(runner, "funnel", *steps, *march, "--csv"))))
    assert [row["users"] for row in rows] == ["3", "3", "1"]
    took = words(output(runner, "time-to-convert", *steps, *march))
    assert took[0] == ["periods", "users", "%"]
    assert sum(int(row[1]) for row in took[1:15]) == 1
    assert " ".join(took[15]).startswith("1 of the 3 who began. Half of them took no longer than")
    over_time = output(runner, "conversion", *steps, *march, "--within", "2", "--by", "week")
    assert words(over_time)[1][:4] == ["2026-03-09", "3", "3", "1"]
    assert "user:upgraded" in output(runner, "timeline", "2", *march)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("show", "user:loged_in"),
            "unknown events or flags: user:loged_in (did you mean user:logged_in",
        ),
        (("users", "~user:created"), "there is no complement"),
        (("show", "user:created &"), "a name is missing"),
        (("show", "user:created", "--by", "fortnight"), "fortnight"),
        (("show", "user:created", "--start", "yesterday"), "yesterday"),
        (("show", "user:created", "--start", "1990-01-01"), "more than 1000 days"),
        (("show", "user:created", "--over", "soon"), "write it like 'last 30 days'"),
        (("show", "user:created", "--over", "today", "--rows", "2"), "give one or the other"),
        (("show", "user:created", "--end", "9999-12-31"), "end must be in the years 1001 to 8998"),
        (("show", "user:created", "--end", "9999-12-31", "--by", "hour"), "end must be"),
        (("stickiness", "user:created", "--end", "0001-01-03"), "end must be in the years"),
        (("users", "user:created", "--at", "9999-12-31"), "must be in the years"),
        (("timeline", "2", "--start", "0001-01-03"), "start must be in the years"),
        (("stickiness", "user:created", "--within", "year"), "within"),
        (("timeline", "None"), "identifies nobody"),
        (("funnel",), "Missing argument"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    arguments: tuple[str, ...], complaint: str, runner: FlaskCliRunner
) -> None:
    done = runner.invoke(args=["bitmapist", *arguments])
    assert done.exit_code == 2
    assert complaint in done.output


def test_a_dead_server_is_a_sentence_and_exit_code_1() -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": "unix:///nowhere"})
    done = app.test_cli_runner().invoke(args=["bitmapist", "events"])
    assert done.exit_code == 1
    assert "Redis does not answer" in done.output
    assert "Traceback" not in done.output


def test_colour_reaches_a_terminal_only(app: Flask, runner: FlaskCliRunner) -> None:
    assert "\x1b[" not in output(runner, "events")
    done = runner.invoke(args=["bitmapist", "events"], color=True)
    assert "\x1b[1m" in done.output


def shell(
    app: Flask, command: str, passed: int | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` for the data of `app`, in a process of its own."""
    program = f"""
from flask import Flask
from flask_bitmapist import FlaskBitmapist
app = Flask("told")
FlaskBitmapist(app, {{"BITMAPIST_REDIS_URL": {app.config["BITMAPIST_REDIS_URL"]!r}}})
"""
    folder = Path(app.instance_path)
    folder.mkdir(exist_ok=True)
    (folder / "told.py").write_text(program)
    flask = f"{shlex.quote(sys.executable)} -m flask --app told"
    return subprocess.run(
        ["sh", "-c", command.replace("flask", flask, 1)],
        capture_output=True,
        cwd=folder,
        env={**os.environ, **environment},
        pass_fds=[] if passed is None else [passed],
        timeout=60,
    )


SHOW = "flask bitmapist show {event} --by week --start 2026-03-09 --end 2026-03-22"


@pytest.mark.parametrize(
    ("encoding", "bar"), [("utf-8", "█"), ("cp437", "█"), ("latin-1", "#"), ("ascii", "#")]
)
def test_bars_are_drawn_with_what_the_outputs_encoding_has(
    encoding: str, bar: str, app: Flask, runner: FlaskCliRunner
) -> None:
    show = SHOW.format(event="user:logged_in").split()[1:]
    told = app.test_cli_runner(charset=encoding).invoke(args=show)
    assert words(told.stdout)[1][-1] == bar * 40
    assert not told.stderr


def test_a_table_tells_names_that_its_encoding_does_not_have(
    app: Flask, runner: FlaskCliRunner
) -> None:
    mark_event("\u6b4c", 1)
    done = shell(app, "flask bitmapist events", PYTHONIOENCODING="latin-1")
    lines = {line[0]: line[1:] for line in words(done.stdout.decode("latin-1"))}
    assert lines["\\u6b4c"] == ["_" * 29 + "#", "1", "1", "1", "1"]


def test_so_does_the_head_of_a_table(app: Flask, runner: FlaskCliRunner) -> None:
    mark_event("\u6b4c", 1)
    done = shell(app, "flask bitmapist overlap \u6b4c user:logged_in", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert words(done.stdout.decode("latin-1"))[0] == ["\\u6b4c", "user:logged_in"]


def test_csv_in_an_encoding_that_does_not_have_a_name_is_refused_with_a_sentence(
    app: Flask, runner: FlaskCliRunner
) -> None:
    mark_event("\u6b4c", 1)
    done = shell(app, "flask bitmapist events --csv", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"PYTHONIOENCODING=utf-8" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_an_output_that_takes_nothing_is_a_sentence(
    form: str, app: Flask, runner: FlaskCliRunner
) -> None:
    done = shell(app, f"flask bitmapist events {form} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "Error: the output was not written: No space left on device"
    ]


@pytest.mark.parametrize("closed", ["| true", ">&-"])
def test_an_output_that_is_closed_prints_no_traceback(
    closed: str, app: Flask, runner: FlaskCliRunner
) -> None:
    assert not shell(app, f"flask bitmapist events {closed}").stderr


def test_csv_is_the_reports_own_table_and_not_what_a_terminal_shows(
    runner: FlaskCliRunner,
) -> None:
    march = ("--start", "2026-03-09", "--end", "2026-03-22", "--by", "week")
    told = output(runner, "retention", "user:created", "user:logged_in", *march, "--csv")
    with runner.app.app_context():
        report = analytics.retention(
            "user:created", "user:logged_in", "week", start=MONDAY, end=MONDAY.replace(day=22)
        )
    assert told == report.to_csv().replace("\r\n", os.linesep)
    events = list(csv.reader(io.StringIO(output(runner, "events", "--csv"))))
    assert events[0][:5] == ["event", "today", "week", "month", "year"]
    assert all(cell.isdigit() for line in events[1:] for cell in line[1:] if cell)


def test_the_same_unit_everywhere(runner: FlaskCliRunner) -> None:
    march = ("--start", "2026-03-09", "--end", "2026-03-22")
    steps = words(output(runner, "funnel", "user:created", "user:upgraded", *march))
    assert steps[-1] == ["user:upgraded", "1", "33.3", "33.3"]
    week = ("--start", "2026-03-16", "--end", "2026-03-22", "--previous")
    beside = words(output(runner, "funnel", "user:created", *week))
    before = ("--start", "2026-03-09", "--end", "2026-03-15")
    alone = words(output(runner, "funnel", "user:created", *before))
    assert alone[-1][1] != "0"
    assert beside[-1][-2:] == alone[-1][1:3]
    cohorts = ("retention", "user:created", "user:logged_in", "--by", "day", "--periods", "1")
    average, earlier = words(output(runner, *cohorts, *week))[1:3]
    assert earlier == ["before,", "%", *words(output(runner, *cohorts, *before))[1][2:]]
    assert average[:2] == ["average,", "%"]
    mean, earlier = words(output(runner, "lifecycle", "user:logged_in", *week))[1:3]
    assert (mean[0], earlier[0]) == ("mean", "before")
    assert (
        earlier[1:]
        == words(output(runner, "lifecycle", "user:logged_in", *before, "--previous"))[1][1:]
    )
    arms = words(
        output(runner, "compare", "user:created", "user:logged_in", "user:upgraded", *march)
    )
    assert arms[1][:4] == ["user:created", "3", "1", "33.3"]


def test_every_report_has_its_command(runner: FlaskCliRunner) -> None:
    march = ("--start", "2026-03-09", "--end", "2026-03-22")
    active = words(output(runner, "active", "user:logged_in", *march))
    assert active[-1] == ["2026-03-22", "0", "2", "3", "0.0"]
    adopted = words(output(runner, "adoption", "user:upgraded", "user:logged_in", *march))
    assert ["2026-03-09", "3", "0", "0.0", "0"] in adopted
    changed = words(output(runner, "changes", "--start", "2026-03-16", "--end", "2026-03-22"))
    assert changed[1:4] == [
        ["user:created", "0", "3", "-3", "-100.0"],
        ["user:logged_in", "2", "3", "-1", "-33.3"],
        ["user:upgraded", "1", "0", "1"],
    ]
    churned = words(
        output(runner, "churned", "user:logged_in", "--silent", "1", "--by", "week", *march)
    )
    assert churned[1:] == [["2026-03-09", "3", "1", "33.3"], ["2026-03-16", "2", "2", "100.0"]]
    both = words(
        output(runner, "overlap", "user:created", "flag:user:premium", "--end", "2026-03-09")
    )
    assert both[1] == ["user:created", "3", "33.3"]
    profile = output(runner, "profile", "2", *march)
    assert ["user:upgraded", "2026-03-17", "2026-03-17", "1"] in words(profile)
    assert "Flags set now: user:premium" in profile


def test_a_user_without_records_gets_a_sentence_that_says_so(runner: FlaskCliRunner) -> None:
    assert "Nothing is recorded for this user" in output(runner, "timeline", "999")
    assert "Nothing is recorded for this user" in output(runner, "profile", "999")


def test_an_id_reaches_the_terminal_harmlessly(runner: FlaskCliRunner) -> None:
    ids = ["red \x1b[31m", "line\nbreak", "turned \u202e round", "no", "a*b"]
    mark_event("texts", ids, now=MONDAY)
    done = runner.invoke(args=["bitmapist", "users", "texts", "--at", "2026-03-09"], color=True)
    assert click.unstyle(done.output).splitlines()[1:] == [
        "red \\x1b[31m",
        "line\\nbreak",
        "turned \\u202e round",
        "no",
        "a*b",
    ]


def test_what_does_not_fit_a_terminal_is_left_out_and_said(
    runner: FlaskCliRunner, app: Flask
) -> None:
    arguments = "retention user:created user:logged_in --start 2026-03-09 --end 2026-03-22"
    terminal, output = pty.openpty()
    shell(app, f"flask bitmapist {arguments} > /proc/self/fd/{output}", passed=output, COLUMNS="80")
    lines = click.unstyle(os.read(terminal, 10_000).decode()).splitlines()
    assert max(map(len, lines[:3])) <= 80
    assert any(line.startswith("No room to show: +") for line in lines)


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_help_has_an_example(name: str, runner: FlaskCliRunner) -> None:
    assert f"flask bitmapist {name}" in output(runner, name, "--help")


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_help_fits_80_columns(name: str, runner: FlaskCliRunner) -> None:
    assert [line for line in output(runner, name, "--help").splitlines() if len(line) > 80] == []


def test_reindex_registers_what_bitmapist_wrote(
    runner: FlaskCliRunner, tracker: Tracker, redis: Any
) -> None:
    for day in (datetime(2025, 3, 9), datetime(2024, 7, 1)):
        bitmapist.mark_event("theirs", 1, system=redis, now=day)
    bitmapist.mark_unique("their:flag", 1, system=redis)
    bitmapist.mark_event("user:created", 9, system=redis, now=datetime(2023, 2, 3))
    mark_event("mapped", "x", now=MONDAY)
    bitmapist.mark_event("mapped", 5, system=redis, now=datetime(2020, 1, 1))
    assert output(runner, "reindex").split("\n")[1:] == [
        "registered  their:flag",
        "registered  theirs",
        "",
    ]
    events, flags, *_ = tracker.reader.known(scanned=False)
    assert events["theirs"] == ("plain", date(2024, 7, 1))
    assert events["user:created"] == ("plain", date(2023, 2, 1))
    assert events["user:logged_in"] == ("plain", MONDAY.date())  # as it was
    assert events["mapped"] == ("mapped", MONDAY.date())
    assert flags["their:flag"] == "plain"
    nothing: dict[str, list[str]] = {"registered": [], "forgotten": []}
    assert json.loads(output(runner, "reindex", "--json")) == nothing


def test_reindex_forgets_what_has_been_deleted(
    runner: FlaskCliRunner, tracker: Tracker, redis: Any
) -> None:
    mark_event("emptied", "x", now=MONDAY)
    mark_unique("empty:flag", "x")
    bitmapist.delete_all_events(redis)
    mark_event("kept", 7, now=MONDAY)
    assert "emptied" in tracker.reader.event_names()
    forgotten = json.loads(output(runner, "reindex", "--json"))["forgotten"]
    assert {"emptied", "empty:flag"} <= {*forgotten}
    assert tracker.reader.event_names() == ["kept"]
    mark_event("emptied", 7, now=MONDAY)
    assert list(DayEvents.from_date("emptied", MONDAY)) == [7]


@pytest.mark.parametrize(
    "command",
    ["erase 2 --yes", "pack --dry-run", "unpack", "doctor"],
    ids=lambda told: told.split()[0],
)
def test_no_progress_is_shown_where_there_is_no_terminal(
    runner: FlaskCliRunner, command: str
) -> None:
    done = runner.invoke(args=["bitmapist", *command.split()])
    assert done.exit_code == 0, done.output
    assert done.stderr == ""

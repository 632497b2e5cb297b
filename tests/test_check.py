"""check: the language of conditions, what it counts, and what the command ends with."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics import check, retention, trend
from flask_bitmapist.questions import CheckQuestion, ConditionError
from flask_bitmapist.questions.condition import parse_condition
from flask_bitmapist.reading.segments import parse
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 28, 14, 32)  # a Saturday
TODAY = NOW.date()
SEEN = "users(user:seen, day)"


@pytest.fixture
def seen(at_now: None) -> None:
    """On each of the last 60 days, as many people as its weekday's number (from 1), ten times."""
    for ago in range(60):
        day = TODAY - timedelta(days=ago)
        mark_event("user:seen", [*range(10 * day.isoweekday())], now=day)
    mark_event("user:seen", [*range(500)], now=NOW)


# The language


@pytest.mark.parametrize(
    ("text", "fault", "reason"),
    [
        ("users(user:seen, day)", "", "a comparison is missing"),
        ("users(user:seen, day) <", "", "a value is missing"),
        ("(users(user:seen, day) < 7", "", "')' is missing"),
        ("users(user:seen, day < 7", "", "')' is missing"),
        ("users(user:seen) < 7", "users(", "write users(an event or segment, day)"),
        ("retention(a, b, week) < 7%", "retention(", "write retention("),
        ("users(user:seen, fortnight) < 7", "fortnight", "the period must be one of hour, day"),
        ("users(a & , day) < 7", " , day", "a name is missing"),
        ("users(~a, day) < 7", "~a", "there is no complement"),
        ("user(user:seen, day) < 7", "user(", "did you mean 'users'?"),
        ("funnel(a, b) < 7", "funnel(", "there are users, retention, mean"),
        ("user:seen < 7", "user:seen", "a value is expected here"),
        ("users(a, day) < 7 or", "", "a value is missing"),
        ("users(a, day) = 7", "= 7", "write '=='"),
        ("users(a, day) < 7 < 8", "< 8", "is not expected here"),
        ("users(a, day) < -7", "-7", "is not expected here"),
        ('users("a, day) < 7', '"a', "this quote is not closed"),
        ("users(a, day) < mean(previous 4 weeks)", "previous", "write 'previous 4 days'"),
        ("users(a, week) < mean(previous 4 same weekdays)", "previous", "is counted by the week"),
        ("users(a, day) < mean(last 4 days)", "last", "write 'previous 7 days'"),
        ("users(a, day) < mean(previous 0 days)", "previous", "must be 1 to 366, not 0"),
        ("users(a, day) < mean(previous 53 same weekdays)", "previous", "must be 1 to 52, not 53"),
        ("users(a, day) < mean(7)", "7)", "write 'previous 7 days'"),
        ("mean(previous 7 days) < 7", "mean(", "it is not clear of what"),
        (
            "users(a, day) / users(b, day) < mean(previous 7 days)",
            "mean(",
            "write mean(users(user:seen, day), previous 7 days)",
        ),
        ("mean(a, previous 7 days) < 7", "a,", "write users("),
        ("mean(users(a, dy), previous 7 days) < 7", "dy", "the period must be one of"),
        ("retention(a, b, week, 1.5) < 7%", "1.5", "this must be a number from 0"),
        ("1 < 2 # really", "#", "is not expected here"),
        ("", "", "a value is missing"),
        ("1 < 2" + " or 1 < 2" * 100, None, "at most 500 characters"),
    ],
)
def test_an_error_points_at_the_character(text: str, fault: str | None, reason: str) -> None:
    with pytest.raises(ConditionError) as error:
        parse_condition(text)
    assert reason in str(error.value)
    expected = 500 if fault is None else text.rindex(fault) if fault else len(text)
    assert error.value.position == expected


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("a & (b | c) - flag:d", "a & (b | c) - flag:d"),
        ('"name, with (signs)" | flag:"and more"', '"name, with (signs)" | flag:"and more"'),
        ("did(user:posted, last 14 days)", "did(user:posted, last 14 days)"),
    ],
)
def test_a_segment_is_written_as_everywhere(text: str, segment: str) -> None:
    (figure,) = parse_condition(f"users({text}, day) < 7").figures()
    assert figure.what == parse(segment)  # type: ignore[union-attr]


@given(st.text(alphabet='users(mean,)day "<>=!+-*/%0.7 prevo4wkd&|~', max_size=60))
def test_any_text_is_a_condition_or_an_error_within_it(text: str) -> None:
    fault = 0
    try:
        parse_condition(text)
    except ConditionError as error:
        fault = error.position
    assert 0 <= fault <= len(text.strip())


# What it counts


def test_the_last_complete_day_is_compared_with_the_same_weekdays_before(seen: None) -> None:
    mark_event("user:seen", [*range(900, 908)], now=datetime(2026, 11, 13))
    found = check(f"{SEEN} < 1.1 * mean(previous 4 same weekdays)")
    assert found.alarm
    assert [one.figure for one in found.figures] == [SEEN, "mean(previous 4 same weekdays)"]
    one, mean = found.figures
    assert (one.value, one.period_start) == (50, date(2026, 11, 27))
    assert mean.summed_up == {
        "2026-10-30": 50,
        "2026-11-06": 50,
        "2026-11-13": 58,
        "2026-11-20": 50,
    }
    assert (mean.value, mean.period_start) == (52, date(2026, 10, 30))
    assert found.sentence == (
        "users(user:seen, day) was 50 on Friday, 27 Nov 2026, less than "
        "1.1 * mean(previous 4 same weekdays), which was 57.2."
    )


@pytest.mark.parametrize(
    ("condition", "alarm"),
    [
        (f"{SEEN} < 50", False),
        (f"{SEEN} <= 50", True),
        (f"{SEEN} >= 50.5", False),
        (f"{SEEN} == 50 and {SEEN} != 51", True),
        (f"not {SEEN} == 50", False),
        (f"({SEEN} < 1 or {SEEN} > 49) and 1 < 2", True),
        (f"{SEEN} < 1 or {SEEN} > 49 and 2 < 1", False),
        (f"not ({SEEN} < 1 or 2 < 1)", True),
        (f"({SEEN} + 10) * 2 - 20 / 4 == 115", True),
        (f"{SEEN} - 10 - 10 == 30", True),
        (f"{SEEN} == median(previous 7 days) + 10", True),
        (f"{SEEN} > max(previous 3 days)", True),
        (f"{SEEN} > max(previous 6 days)", False),
        (f"min(previous 6 periods) == 10 and {SEEN} > 0", True),
        ("users(user:seen, week) == 70", True),
        ("users(user:seen & flag:beta, day) / users(user:seen, day) < 5%", True),
        ("mean(users(user:seen, week), previous 2 weeks) == 70 and 1 < 2", True),
        (f"  {SEEN}\n  <\n  60 ", True),
    ],
)
def test_conditions_hold_or_do_not(seen: None, condition: str, alarm: bool) -> None:
    mark_unique("beta", [3, 4])
    found = check(condition)
    assert (found.alarm, found.exit_code) == (alarm, 3 if alarm else 0)


def test_another_period_can_be_looked_at(seen: None) -> None:
    assert check(f"{SEEN} == 10", at=date(2026, 11, 23)).alarm
    assert check(f"{SEEN} == 500", at=NOW).alarm
    assert check(f"{SEEN} == 40", now=date(2026, 11, 27)).alarm


def test_retention_is_that_of_the_cohort_k_periods_before(at_now: None) -> None:
    for week, ids in ((2, range(10)), (9, range(10, 30)), (16, range(30, 40))):
        mark_event("user:created", [*ids], now=datetime(2026, 11, week))
    mark_event("user:seen", [0, 1], now=datetime(2026, 11, 10))
    mark_event("user:seen", [*range(10, 20)], now=datetime(2026, 11, 17))
    mark_event("user:seen", [30, 39], now=datetime(2026, 11, 24))
    text = "retention(user:created, user:seen, week, 1)"
    found = check(f"{text} > mean(previous 2 weeks)", now=datetime(2026, 11, 24))
    report = retention("user:created", "user:seen", "week", 1, datetime(2026, 11, 2))
    assert [row.cells[1].rate for row in report.rows[:3]] == [0.2, 0.5, 0.2]
    assert found.figures[0].value == 0.5
    assert found.figures[1].summed_up == {"2026-11-09": 0.2}
    assert found.sentence == (
        f"{text} was 50.0 % in the week of 16 Nov 2026, more than mean(previous 2 weeks), "
        "which was 20.0 %."
    )
    with pytest.raises(ValueError, match="nobody did user:created for the first time 1 weeks"):
        check(f"{text} < 7%", now=datetime(2026, 11, 3))


def test_days_before_the_first_one_are_not_compared_with(at_now: None) -> None:
    for ago in range(4):
        mark_event("user:seen", [*range(10)], now=TODAY - timedelta(days=ago))
    found = check(f"{SEEN} < mean(previous 7 days)")
    assert found.figures[1].summed_up == {"2026-11-25": 10, "2026-11-26": 10}
    with pytest.raises(ValueError, match="nothing to sum up: nothing of it was recorded on Friday"):
        check(f"{SEEN} < mean(previous 4 same weekdays)")


def test_a_week_of_which_the_beginning_was_not_recorded_is_not_compared_with(at_now: None) -> None:
    for day in (11, 17, 24):
        mark_event("user:seen", [*range(10)], now=datetime(2026, 11, day))
    now = datetime(2026, 11, 30)
    text = "users(user:seen, week)"
    assert check(f"{text} == mean(previous 4 weeks)", now=now).figures[1].summed_up == {
        "2026-11-16": 10
    }
    assert check(f"{text} == 10", now=datetime(2026, 11, 16)).alarm


def test_days_that_have_expired_are_not_compared_with(
    process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker = process(redis_url, BITMAPIST_TTL={"day": timedelta(days=14)})
    with tracker.at(NOW):
        for ago in range(40):
            if ago < 14:
                tracker.mark("user:seen", 7)
            with tracker.at(NOW - timedelta(days=ago)):
                tracker.record([("user:seen", 7)])
        found = check(f"{SEEN} < mean(previous 4 same weekdays)", tracker=tracker)
    assert [*found.figures[1].summed_up] == ["2026-11-20"]


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("users(user:sen, day) < 7", "unknown events or flags: user:sen (did you mean user:seen?)"),
        ("users(user:seen, day) / users(rare, day) < 7", "nothing to divide by"),
        ("users(rare, day) < 7", "has no value on Friday, 27 Nov 2026"),
        (f"users(user:seen, day) < {'9' * 400}", "too large to compare"),
        (f"7 < users(user:seen, day){f' * {10**99}' * 4}", "too large to compare"),
    ],
)
def test_a_condition_about_nothing_is_an_error(seen: None, condition: str, complaint: str) -> None:
    mark_event("rare", 1, now=NOW if "/" not in condition else datetime(2026, 11, 1))
    with pytest.raises(ValueError, match=re.escape(complaint)):
        check(condition)


@given(
    days=st.lists(st.sets(st.integers(0, 20), max_size=20), min_size=30, max_size=30),
    count=st.integers(1, 4),
    by=st.sampled_from(["mean", "median", "min", "max"]),
)
def test_it_agrees_with_plain_sets(
    days: list[set[int]], count: int, by: str, app: Flask, tracker: Tracker, redis: Any
) -> None:
    redis.flushdb()
    with app.app_context(), tracker.at(NOW):
        mark_event("user:seen", 99, now=TODAY - timedelta(days=90))
        for ago, ids in enumerate(days, start=1):
            mark_event("user:seen", [*ids], now=TODAY - timedelta(days=ago))
        found = check(f"{SEEN} < {by}(previous {count} same weekdays)")
    before = [len(days[7 * n]) for n in range(1, count + 1)]
    summed: Any = {"mean": statistics.mean, "median": statistics.median, "min": min, "max": max}
    assert found.figures[1].value == pytest.approx(summed[by](before))
    assert found.alarm == (len(days[0]) < found.figures[1].value)


def test_a_condition_takes_few_round_trips(seen: None, round_trips: list[object]) -> None:
    trend("user:seen")
    round_trips.clear()
    check(f"{SEEN} < 0.7 * mean(previous 4 same weekdays)")
    assert len(round_trips) <= 4


def test_it_is_a_question_and_has_a_table(seen: None) -> None:
    question = CheckQuestion.of(condition=f"{SEEN} < 7")
    assert question.arguments == {"condition": f"{SEEN} < 7"}
    assert check(f"{SEEN} < 7").to_csv() == (
        'figure,by,period_start,value\r\n"users(user:seen, day)",day,2026-11-27,50\r\n'
    )


# The command


@pytest.fixture
def runner(app: Flask, seen: None) -> FlaskCliRunner:
    return app.test_cli_runner()


def test_the_command_ends_with_3_and_a_sentence_if_it_holds(runner: FlaskCliRunner) -> None:
    done = runner.invoke(
        args=["bitmapist", "check", f"{SEEN} < 2 * mean(previous 2 same weekdays)"]
    )
    assert done.exit_code == 3
    assert done.output == (
        "Alarm: users(user:seen, day) was 50 on Friday, 27 Nov 2026, less than "
        "2 * mean(previous 2 same weekdays), which was 100.\n"
        "\n"
        "figure                          of\n"
        "mean(previous 2 same weekdays)  50, 50\n"
    )


def test_the_command_ends_with_0_if_it_does_not_hold(runner: FlaskCliRunner) -> None:
    done = runner.invoke(args=["bitmapist", "check", f"{SEEN} < 7"])
    assert (done.exit_code, done.output) == (
        0,
        "All is well: users(user:seen, day) was 50 on Friday, 27 Nov 2026, not less than 7.\n",
    )


def test_the_command_tells_programs(runner: FlaskCliRunner) -> None:
    done = runner.invoke(args=["bitmapist", "check", f"{SEEN} > 7", "--json"])
    told = json.loads(done.output)
    assert done.exit_code == 3
    assert told["alarm"] is True
    assert told["figures"] == [
        {
            "figure": SEEN,
            "by": "day",
            "period_start": "2026-11-27",
            "value": 50,
            "summed_up": {},
        }
    ]


@pytest.mark.parametrize("condition", ["users(user:sen, day) < 7", "users(user:seen, day) <"])
def test_a_condition_that_cannot_be_checked_ends_with_2(
    runner: FlaskCliRunner, condition: str
) -> None:
    done = runner.invoke(args=["bitmapist", "check", condition])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_a_server_that_is_away_ends_with_1_and_says_so() -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": "unix:///nowhere"})
    done = app.test_cli_runner().invoke(args=["bitmapist", "check", f"{SEEN} < 7"])
    assert done.exit_code == 1
    assert "Redis does not answer" in done.output

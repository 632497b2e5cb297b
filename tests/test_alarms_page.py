"""The page on alarms and digests: its transcripts are what the commands print."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta

import pytest
from documented import ROOT
from flask import Flask

from flask_bitmapist import chart, mark_event, mark_unique

NOW = datetime(2026, 11, 28, 6, 15)
PAGE = (ROOT / "docs" / "alarms.md").read_text()
#: A command, and what it prints.
TRANSCRIPTS = [
    pair
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)
    for pair in re.findall(r"^\$ flask (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
]


@pytest.fixture
def week_after_week(app: Flask, at_now: None) -> None:
    """Ten people on a Monday, seventy on a Sunday, week after week; yesterday was poor."""
    for ago in range(1, 60):
        day = NOW - timedelta(days=ago)
        mark_event("user:seen", [*range(30 if ago == 1 else 10 * day.isoweekday())], now=day)
    mark_unique("user:premium", [*range(20)])
    app.extensions["bitmapist"].board(
        "Weekly",
        [
            chart("Active people", "trend", event="user:seen", by="week", rows=3),
            chart("Premium people", "trend", event="user:seen & flag:user:premium", rows=3),
        ],
    )


@pytest.mark.parametrize(("command", "printed"), TRANSCRIPTS, ids=lambda text: text[:60])
def test_a_command_prints_what_the_page_shows(
    app: Flask, week_after_week: None, command: str, printed: str
) -> None:
    done = app.test_cli_runner().invoke(args=shlex.split(command), prog_name="flask")
    assert done.output.splitlines() == printed.splitlines()


def test_the_page_has_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 5

"""The transcripts of the page on erasing are what the commands print."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import made_app
from documented import ROOT
from flask import Flask

from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

TRANSCRIPT = re.compile(r"^```\{code-block\} console\n:caption: [^\n]+\n\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def transcripts() -> list[str]:
    return TRANSCRIPT.findall((ROOT / "docs" / "erasing.md").read_text())


def test_the_transcript_of_an_erasure_is_what_the_commands_print(
    app: Flask, tracker: Tracker, transcripts: list[str]
) -> None:
    for person in ("bob@example.org", "ann@example.org"):
        for event, day in (("user:created", 14), ("song:played", 14), ("song:played", 15)):
            tracker.record([(event, person, True, True, datetime(2026, 3, day, 12))])
        tracker.record([("user:premium", person, True, False)])
    assert printed(app, transcripts[0]) == transcripts[0]


def test_the_transcript_of_those_who_wait_is_what_the_commands_print(
    app: Flask, tracker: Tracker, transcripts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.later.Later.submit", lambda *_: None)
    for person in (41, 42, 43):
        for event, day in (("user:created", 14), ("song:played", 14), ("song:played", 15)):
            tracker.record([(event, person, True, True, datetime(2026, 3, day, 12))])
    tracker.publish([Mark("user", person, False, kept=()) for person in (41, 42)])
    assert printed(app, transcripts[1]) == transcripts[1]


def test_the_transcript_of_pruning_is_what_the_commands_print(
    redis_url: str, redis: Any, tmp_path: Path, transcripts: list[str]
) -> None:
    ttl = {"hour": timedelta(days=14), "day": timedelta(days=400)}
    app = made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True, BITMAPIST_TTL=ttl)
    tracker = app.extensions["bitmapist"].tracker_of(app)
    tracker.record([("song:played", 7)])
    today = date.today()
    for key, id_ in (
        ("2024-5-1-12", 3),
        ("2024-5-1", 7),
        ("2024-5-2", 2_000),
        (f"{today.year}-{today.month}-{today.day}", 7),
    ):
        redis.setbit(f"trackist_song:played_{key}", id_, 1)
        redis.persist(f"trackist_song:played_{key}")
    assert printed(app, transcripts[2]) == transcripts[2]


def printed(app: Flask, transcript: str) -> str:
    """What the commands of `transcript` print."""
    text = ""
    for command in re.findall(r"^\$ flask (.*)$", transcript, re.M):
        done = app.test_cli_runner().invoke(args=command.split())
        text += f"$ flask {command}\n{done.stdout}"
    return text

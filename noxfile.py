"""The test matrix. ``nox`` runs what a change needs, ``nox -t matrix`` every supported version.

``nox -s browser`` needs Chromium and npm as well: without them its tests are skipped.

``nox -t oldest`` tests the oldest supported version of each ORM, of Flask and of redis-py; the
newest ones are those of ``nox -s tests``.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "docs", "browser"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
AXE_CORE = "4.14.1"
PYTHONS = ["3.11", "3.12", "3.13"]
NEWER_PYTHONS = ["3.14", "3.15"]
REDIS_PYS = {"5.1": "redis==5.1.*", "6": "redis==6.*", "7": "redis==7.*", "8": "redis>=8"}
# Marking, delivery, ids, bitmapist's classes, reports and pages, in about a minute.
FAST_TESTS = (
    "tests/test_marking.py",
    "tests/test_ids.py",
    "tests/test_delivery.py",
    "tests/test_events.py",
    "tests/test_extension.py",
    "tests/test_cli.py",
    "tests/analytics/test_reading.py",
    "tests/analytics/test_people.py",
    "tests/dashboard/test_answers.py",
    "tests/adapters/test_contract_example.py",
)
# Tests start many processes: none of them is to compile the package anew.
COMPILE_ONCE = {"PYTHONDONTWRITEBYTECODE": ""}
MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
#: Tests wait half of the time, for processes and servers.
WAITING = f"--numprocesses={2 * (os.cpu_count() or 1)}"
#: The oldest Flask goes with the oldest redis-py: the newest ones are tested together, too.
FLASKS = {
    "3.0": ["flask==3.0.*", "werkzeug==3.0.*", REDIS_PYS["5.1"]],
    "newest": ["flask"],
}
SQLALCHEMYS = {"2.0": "sqlalchemy==2.0.*", "2.1": "sqlalchemy==2.1.*"}
PEEWEES = {"3.17": "peewee==3.17.*", "3.19": "peewee==3.19.*", "newest": "peewee>=4.5"}
# mongoengine 0.27 cannot be imported with a newer pymongo.
MONGOENGINES = {
    "0.27": ["mongoengine==0.27.*", "pymongo<4.9"],
    "newest": ["mongoengine>=0.29"],
}


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


def versions(orm_versions: Iterable[str]) -> Iterator[object]:
    """Each version of an ORM with each of Flask, on each Python; the first one is the oldest."""
    for orm in orm_versions:
        for flask in FLASKS:
            oldest = orm == next(iter(orm_versions)) and flask == next(iter(FLASKS))
            for python in PYTHONS:
                tags = ["matrix", "oldest"] if oldest and python == PYTHONS[0] else ["matrix"]
                yield nox.param(python, orm, flask, id=f"{python}-{orm}-flask-{flask}", tags=tags)


def quick() -> dict[str, str]:
    """The environment in which tests run. Half of their time they would wait for the disk."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
        memory = os.statvfs(MEMORY)
        if memory.f_bavail * memory.f_frsize > ROOM and not memory.f_flag & os.ST_NOEXEC:
            return COMPILE_ONCE | {"PYTEST_DEBUG_TEMPROOT": str(MEMORY)}
    return COMPILE_ONCE


def run_tests(session: nox.Session, *requirements: str, paths: tuple[str, ...] = ()) -> None:
    # One resolution for all: a later install would undo the pins of an earlier one.
    session.install("-e", ".[all]", *group("tests"), *requirements)
    install_bitmapist(session)
    shared_database = {"TEST_POSTGRESQL_URL", "TEST_MYSQL_URL"} & os.environ.keys()
    parallel = [] if shared_database else [WAITING, "--dist=worksteal"]
    session.run("pytest", *paths, *parallel, *session.posargs, env=quick())


def install_bitmapist(session: nox.Session) -> None:
    # Its bounds (Python below 3.14, redis-py below 6) are needless; the tests show that it works.
    extra = PYPROJECT["project"]["optional-dependencies"]["bitmapist"]
    session.install("--no-deps", "--ignore-requires-python", *extra)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on this Python and the newest libraries."""
    run_tests(session)


@nox.session
@nox.parametrize("python,sqlalchemy,flask", versions(SQLALCHEMYS))
def sqlalchemy(session: nox.Session, sqlalchemy: str, flask: str) -> None:
    """The SQLAlchemy adapter and what touches Flask, over versions of both."""
    paths = ("tests/adapters", *FAST_TESTS, "tests/test_login.py", "-k", "not peewee and not mongo")
    requirements = (SQLALCHEMYS[sqlalchemy], "flask-sqlalchemy==3.1.*", *FLASKS[flask])
    run_tests(session, *requirements, paths=paths)


@nox.session
@nox.parametrize("python,peewee,flask", versions(PEEWEES))
def peewee(session: nox.Session, peewee: str, flask: str) -> None:
    """The peewee adapter over peewee versions."""
    paths = ("tests/adapters", "-k", "peewee")
    run_tests(session, PEEWEES[peewee], *FLASKS[flask], paths=paths)


@nox.session
@nox.parametrize("python,mongoengine,flask", versions(MONGOENGINES))
def mongoengine(session: nox.Session, mongoengine: str, flask: str) -> None:
    """The MongoEngine adapter over mongoengine versions."""
    paths = ("tests/adapters", "-k", "mongoengine")
    run_tests(session, *MONGOENGINES[mongoengine], *FLASKS[flask], paths=paths)


@nox.session(tags=["matrix"])
@nox.parametrize("redis", [*REDIS_PYS])
def redis(session: nox.Session, redis: str) -> None:
    """A fast choice of the tests over versions of redis-py, and bitmapist beside each."""
    run_tests(session, REDIS_PYS[redis], paths=FAST_TESTS)


@nox.session(python=NEWER_PYTHONS, tags=["matrix"])
def newer_python(session: nox.Session) -> None:
    """The same choice on Pythons that not every machine has; skipped where one is missing."""
    run_tests(session, paths=FAST_TESTS)


@nox.session
def package(session: nox.Session) -> None:
    """The wheel in fresh environments, with each extra. Needs a package index."""
    session.install(*group("package"))
    paths = ("tests/package", "--confcutdir=tests/package", "--numprocesses=auto")
    session.run("pytest", *paths, *session.posargs, env={"PACKAGE_TESTS": "1"})


@nox.session
def workers(session: nox.Session) -> None:
    """The servers and task queues that run applications: what they lose as they fork and end."""
    session.install("-e", ".[all]", *group("workers"))
    install_bitmapist(session)
    paths = ("tests/workers", WAITING)
    session.run("pytest", *paths, *session.posargs, env=quick() | {"WORKERS": "1"})


@nox.session
def chaos(session: nox.Session) -> None:
    """Faults in mid-load, of 100,000 marks each: what was acknowledged arrives. Two minutes."""
    session.install("-e", ".[all]", *group("tests"))
    install_bitmapist(session)
    marks = {"CHAOS": os.environ.get("CHAOS", "100000")}
    session.run("pytest", "tests/chaos", WAITING, *session.posargs, env=quick() | marks)


@nox.session
def soak(session: nox.Session) -> None:
    """A site that marks beside one that does not, through random faults. SOAK_SECONDS: 600."""
    session.install("-e", ".[all]", *group("workers"))
    install_bitmapist(session)
    seconds = {"SOAK_SECONDS": os.environ.get("SOAK_SECONDS", "600")}
    session.run("pytest", "tests/soak", "--log-cli-level=INFO", *session.posargs, env=seconds)


@nox.session
def browser(session: nox.Session) -> None:
    """The dashboard in Chromium, which ``apt install chromium`` brings or CHROMIUM names."""
    session.install("-e", ".[all]", *group("browser"))
    install_bitmapist(session)
    session.env.setdefault("AXE_CORE", str(axe_core(session)))
    parallel = ["--numprocesses=2", "--dist=worksteal"]
    session.run("pytest", "tests/browser", *parallel, *session.posargs, env=quick())


def axe_core(session: nox.Session) -> Path:
    """The accessibility checker, kept in the session's cache folder."""
    folder = session.cache_dir / f"axe-core-{AXE_CORE}"
    file = folder / "package" / "axe.min.js"
    if not file.exists() and "AXE_CORE" not in os.environ and shutil.which("npm"):
        folder.mkdir(exist_ok=True)
        pack = ("npm", "pack", f"axe-core@{AXE_CORE}", "--silent", f"--pack-destination={folder}")
        session.run_install(*pack, external=True)
        with tarfile.open(folder / f"axe-core-{AXE_CORE}.tgz") as archive:
            archive.extractall(folder, filter="data")
    return file


@nox.session
def mutation(session: nox.Session) -> None:
    """Each hook and guard of the adapters broken in turn: some test has to fail. Takes an hour."""
    session.install("-e", ".[all]", *group("tests"))
    install_bitmapist(session)
    session.run("python", "tests/mutate_adapters.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """The random programs and histories with many more examples than every day. Takes hours."""
    session.install("-e", ".[all]", *group("tests"))
    install_bitmapist(session)
    many = {"FUZZ_EXAMPLES": "5000", "BITMAPIST_TRUTH_EXAMPLES": "1000"}
    paths = ("tests/adapters", "tests/analytics/test_truth.py", "-k", "fuzz or programs or truth")
    session.run("pytest", *paths, "--numprocesses=auto", *session.posargs, env=many)
    # Those that state no number of their own.
    some = {"FUZZ_EXAMPLES": "500"}
    session.run("pytest", "-m", "hypothesis", "--numprocesses=auto", *session.posargs, env=some)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Every benchmark beside bitmapist, as ratios; nothing fails by a machine's speed."""
    session.install("-e", ".[all]", *group("tests"))
    install_bitmapist(session)
    for benchmark in session.posargs or sorted(map(str, Path("benchmarks").glob("*.py"))):
        session.run("python", benchmark)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and types."""
    session.install("-e", ".[all]", *group("lint"), *group("tests"))
    install_bitmapist(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings being errors."""
    session.install("-e", ".[all]", *group("docs"))
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html")


@nox.session
def pictures(session: nox.Session) -> None:
    """The documentation's pictures, taken from the demo in Chromium."""
    session.install("-e", ".[demo]", "playwright")
    session.run("python", "docs/take_pictures.py")

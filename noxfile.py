"""The test matrix. ``nox`` runs what a change needs, ``nox -t matrix`` every supported version."""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session(tags=["quick"])
def tests(session: nox.Session) -> None:
    """The test suite on this Python and the newest libraries."""
    session.install("-e", ".[all]", *group("tests"))
    session.run("pytest", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"], tags=["matrix"])
@nox.parametrize("flask", ["3.0", "newest"])
@nox.parametrize("sqlalchemy", ["2.0", "2.1"])
def matrix(session: nox.Session, sqlalchemy: str, flask: str) -> None:
    """The test suite over Python, SQLAlchemy and Flask versions."""
    flask_pins = ["flask==3.0.*", "werkzeug==3.0.*"] if flask == "3.0" else ["flask"]
    session.install("-e", ".[all]", *group("tests"), f"sqlalchemy=={sqlalchemy}.*", *flask_pins)
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and types."""
    session.install("-e", ".[all]", *group("lint"), *group("tests"))
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

"""The house: imports go one way, and each process loads only what it needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from interpreter import run

import flask_bitmapist

PACKAGE = Path(flask_bitmapist.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def statements(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """The imports that run, those inside functions too, without those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from statements(node)


def imported(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that `name` imports."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for statement in statements(ast.parse(file.read_text())):
        above = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*(above if statement.level else []), *filter(None, [statement.module])])
        for alias in statement.names:
            deeper = f"{base}.{alias.name}"
            found.add(deeper if deeper in known else base)
    return {module for module in found if module in known} - {name}


def test_no_module_imports_one_that_imports_it() -> None:
    known = modules()
    graph = {name: imported(name, file, known) for name, file in known.items()}
    assert graph["flask_bitmapist.api"] >= {"flask_bitmapist.marks", "flask_bitmapist.tracker"}
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_nothing_is_drawn_from_the_generator_that_the_application_may_have_seeded() -> None:
    """It would find other numbers in it then, and forked processes would pause alike."""
    for name, file in modules().items():
        if not name.startswith("flask_bitmapist.demo."):  # which plays the same year each time
            drawn = re.findall(r"\brandom\.(?!SystemRandom\b)[a-z]\w*\(", file.read_text())
            assert not drawn or "import random" not in file.read_text(), (name, drawn)


def test_what_lies_below_knows_nothing_of_what_lies_above() -> None:
    known = modules()
    above = (
        "dashboard",
        "cli",
        "analytics",
        "adapters",
        "legacy",
        "demo",
        "testing",
        "login",
        "api",
    )
    for below in ("reading", "questions", "delivery", "marks", "ids", "periods", "registry"):
        for name, file in known.items():
            if name.split(".")[1:2] == [below]:
                used = {module.split(".")[1] for module in imported(name, file, known)}
                assert used.isdisjoint(above), name


def test_a_process_that_only_reads_loads_no_delivery_and_no_sqlite(redis_url: str) -> None:
    script = f"""
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist, analytics
FlaskBitmapist(Flask("app"), {{"BITMAPIST_REDIS_URL": {redis_url!r}}})
analytics.trend("a")
print([m for m in ("sqlite3", "flask_bitmapist.delivery") if m in sys.modules])
"""
    assert run(script) == "[]"


def test_a_question_needs_no_numpy_and_no_server() -> None:
    script = """
import sys
from flask_bitmapist.questions import RetentionQuestion
question = RetentionQuestion.of(cohort="user:created", returned="user:seen & flag:premium")
print(question.arguments, "numpy" in sys.modules)
"""
    assert run(script) == (
        "{'cohort': 'user:created', 'returned': 'user:seen & flag:premium'} False"
    )


def test_a_lock_is_one_that_a_forked_child_can_take() -> None:
    # The flusher, the queue and a pool make new ones in a child; a fork waits for the spool's.
    own = {"locks.py", "flusher.py", "queue.py", "punctual.py", "database.py", "forks.py"}
    for file in PACKAGE.rglob("*.py"):
        assert file.name in own or not re.search(r"threading\.R?Lock\(\)", file.read_text()), file

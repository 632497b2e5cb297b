"""The documentation's own examples, as written there, each page run from top to bottom."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path
from types import ModuleType

import click
import pytest
import warm
from documented import BROUGHT_BY, PAGES, ROOT, example_of, files_of, installed_by, needs_of

import flask_bitmapist
from flask_bitmapist import analytics, questions, testing
from flask_bitmapist.cli import commands
from flask_bitmapist.testing import AdapterContract

RUN_HERE = [page for page in PAGES if example_of(page)]
#: Pages whose files are a small project with tests. Those of the page on adapters run elsewhere.
PROJECTS = [page for page in PAGES if "conftest.py" in files_of(page)]
#: The modules that show examples in their docstrings.
SHOWING = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "flask_bitmapist").rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # instance folders, and the servers in them, are made here
    exec(compile(example_of(page), page, "exec"), ModuleType("example").__dict__)


@pytest.mark.parametrize("page", PROJECTS, ids=lambda page: page.name)
def test_the_tests_of_a_page_pass(page: Path, tmp_path: Path) -> None:
    for name, code in files_of(page).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    options: list[str | Path] = [
        "-q",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    # Plugins are ours, and not its reader's.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run(
        [warm.python(), "-m", "pytest", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_installs_is_enough_for_its_examples(page: Path) -> None:
    installed = set[str]().union(*installed_by(page))
    missing = {need for need in needs_of(page) if not BROUGHT_BY[need] & installed}
    assert missing == set()


@pytest.mark.parametrize("name", SHOWING)
def test_the_examples_of_docstrings_hold(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"datetime": datetime})
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    "module", [flask_bitmapist, analytics, questions, testing], ids=lambda module: module.__name__
)
def test_the_reference_has_every_public_name(module: ModuleType) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", page, re.M))
    for whole in re.findall(r"^\.\. automodule:: ([\w.]+)\n   :members:$", page, re.M):
        documented |= {f"{whole}.{name}" for name in importlib.import_module(whole).__all__}
    names = {f"{module.__name__}.{name}" for name in (*module.__all__, *mixins_of(module))}
    assert names - documented == set()


def mixins_of(module: ModuleType) -> set[str]:
    """The models' mixins, which `import *` leaves out; `Bitmapistable` is one by another name."""
    return {name for name in dir(module) if name.endswith("Bitmapistable")} - {"Bitmapistable"}


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_the_page_of_commands_has_every_command_and_option(name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    sections = dict(re.findall(r"^## `([\w-]+)[^`]*`\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    options = {
        option
        for parameter in commands.commands[name].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    undocumented = options - set(re.findall(r"`(--[\w-]+)", sections[name]))
    # Those of every report; `export` is for programs alone, and a digest is no table.
    assert undocumented == (set() if name in ("export", "digest") else {"--json", "--csv"})


def test_the_page_of_commands_has_no_command_that_there_is_none() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    assert set(re.findall(r"^## `([\w-]+)", page, re.M)) == commands.commands.keys()


def test_the_index_links_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {page.name for page in PAGES if page.parent == ROOT / "docs"} - {"index.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages
    trees = "".join(re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL))
    assert {f"{name}.md" for name in re.findall(r"^([\w-]+)$", trees, re.M)} == pages


def test_the_table_of_adapters_has_every_test_of_the_contract() -> None:
    tests = [test for name, test in vars(AdapterContract).items() if name.startswith("test_")]
    table = (ROOT / "docs" / "adapters.md").read_text()
    for test in tests:
        assert f"| {(inspect.getdoc(test) or '').splitlines()[0]} |" in table


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "SECURITY.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`([\w/]*(?:\.py)?)::(test_\w+)`", (ROOT / page).read_text())
    assert len(named) > 10
    file, missing = "", []
    for path, test in named:
        file = path or file  # `::test_...` is in the file that was named last
        if f"def {test}(" not in (ROOT / file).read_text():
            missing.append(f"{file}::{test}")
    assert missing == []

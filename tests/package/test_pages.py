"""Each page of the documentation, run in an environment that its own install line has made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from documented import PAGES, example_of, files_of, installed_by

from .conftest import Environment

SHOWING = [page for page in PAGES if example_of(page) or files_of(page)]


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.name)
def test_a_page_runs_as_it_says_to_install(
    install: Callable[..., Environment], tmp_path: Path, page: Path
) -> None:
    extras, others = installed_by(page)
    assert extras or others
    environment = install(",".join(sorted(extras)), *sorted(others))
    (tmp_path / "example.py").write_text(example_of(page))
    # Not as the main program: `app.run()` of the quickstart would serve for ever.
    environment.run("-c", f"import runpy; runpy.run_path({str(tmp_path / 'example.py')!r})")
    files = files_of(page)
    for name, code in files.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    if files:
        environment.run("-m", "pytest", "--quiet", str(tmp_path / "project"))

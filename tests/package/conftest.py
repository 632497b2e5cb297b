"""The wheel, as users get it. Needs a package index: ``nox -s package``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The other tests run without a network.
collect_ignore_glob = [] if "PACKAGE_TESTS" in os.environ else ["test_*.py"]


class Environment:
    """A fresh virtual environment with one requirement in it."""

    def __init__(self, folder: Path, *requirements: str) -> None:
        self._folder = folder
        # Without a pip of its own it is made in no time; ours installs into it.
        venv.create(folder, with_pip=False, symlinks=True)
        self._python = str(folder / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", self._python, "install", "--quiet"]
        subprocess.run([*pip, *requirements], check=True, timeout=600)

    def run(self, *arguments: str) -> str:
        """What this environment's Python prints, run in an empty folder."""
        (self._folder / "empty").mkdir(exist_ok=True)
        done = subprocess.run(
            [self._python, *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=self._folder / "empty",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, timeout=600)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def install(
    wheel: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Environment]:
    """Installs the wheel with some extras, and what else is asked for, in a fresh environment."""

    def installed(extras: str = "", *others: str) -> Environment:
        request.addfinalizer(lambda: shutil.rmtree(tmp_path))
        requirement = f"flask-bitmapist{f'[{extras}]' if extras else ''} @ {wheel.as_uri()}"
        return Environment(tmp_path / "environment", requirement, *others)

    return installed

"""Scripts in an interpreter of their own, which has imported nothing yet."""

from __future__ import annotations

import subprocess
import sys


def run(script: str, *arguments: str) -> str:
    """What `script` prints; every warning in it is an error."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

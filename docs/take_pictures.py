"""Take the documentation's pictures from the running demo, so that they never lie.

    nox -s pictures

Needs Chromium (Debian: apt install chromium); CHROMIUM= says where it is.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
PICTURES = {
    "dashboard.png": "/bitmapist/cohort?cohort=user%3Acreated&returned=user%3Aseen&by=week",
    "overview.png": "/bitmapist/",
    "board.png": "/bitmapist/boards?board=Marginalia+this+week",
}


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flask_bitmapist.demo", "--instance", folder]
        demo = subprocess.Popen([*command, "--port", str(port)])
        try:
            _wait_for(port)
            _take(f"http://127.0.0.1:{port}")
        finally:
            demo.terminate()
            demo.wait()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    sys.exit("the demo did not start within a minute")


def _take(url: str) -> None:
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 640}, device_scale_factor=1.5)
        for name, path in PICTURES.items():
            page.goto(url + path, timeout=120_000, wait_until="networkidle")
            page.screenshot(path=IMAGES / name, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()

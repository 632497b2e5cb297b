"""The scripts and styles of others: what they are is known, and they are what is known."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from .conftest import PAGES, Browser

ROOT = Path(__file__).parents[2]
VENDOR = Path(str(files("flask_bitmapist.dashboard"))) / "static/vendor"
VENDORED = json.loads((VENDOR / "vendored.json").read_text("utf-8"))
LICENCES = (VENDOR / "LICENSES.txt").read_text("utf-8")
#: How the licence file calls a package.
TITLES = {"htmx.org": "htmx", "tom-select": "Tom Select", "uplot": "uPlot"}


def integrity(content: bytes) -> str:
    return "sha384-" + b64encode(hashlib.sha384(content).digest()).decode()


def test_every_vendored_file_is_recorded() -> None:
    lying = {file.name for file in VENDOR.iterdir()}
    assert lying == {*VENDORED, "vendored.json", "LICENSES.txt"}


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_file_has_a_package_a_version_a_licence_and_its_hash(name: str) -> None:
    facts = VENDORED[name]
    assert facts["package"] in TITLES
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["version"])
    assert facts["licence"] in ("MIT", "0BSD", "Apache-2.0")
    assert facts["integrity"] == integrity((VENDOR / name).read_bytes())


@pytest.mark.parametrize("name", VENDORED)
def test_the_text_of_each_licence_is_there(name: str) -> None:
    facts = VENDORED[name]
    title = f"{TITLES[facts['package']]} ({facts['licence']})"
    _, found, after = LICENCES.partition(f"{title}\n{'=' * len(title)}\n")
    assert found
    words = {
        "MIT": "Permission is hereby granted, free of charge, to any person",
        "0BSD": "Permission to use, copy, modify, and/or distribute this software",
        "Apache-2.0": "Apache License",
    }
    assert words[facts["licence"]] in after[:1000]


def test_pages_load_every_vendored_file_with_its_hash(recorded: None, browser: Browser) -> None:
    for address in (*PAGES, "/person?id=1", "/person"):
        page = browser.open(address, 400 if address == "/person" else 200)
        loaded = {
            Path(urlsplit(address).path).name: one.attributes["integrity"]
            for one in page
            if (address := one.attributes.get("src") or one.attributes.get("href", ""))
            and "/vendor/" in address
        }
        assert loaded == {name: facts["integrity"] for name, facts in VENDORED.items()}


def test_what_the_server_sends_has_the_recorded_hash(client: FlaskClient) -> None:
    for name, facts in VENDORED.items():
        sent = client.get(f"/bitmapist/static/vendor/{name}?v={facts['version']}", buffered=True)
        assert integrity(sent.data) == facts["integrity"]


def test_a_new_version_has_a_new_address(recorded: None, browser: Browser) -> None:
    page = browser.open("/")
    for script in page.all("script"):
        path, _, version = script.attributes["src"].partition("?v=")
        if "/vendor/" in path:
            assert version == VENDORED[Path(path).name]["version"]


def test_no_style_loads_anything_from_elsewhere() -> None:
    for style in (*VENDOR.glob("*.css"), VENDOR.parent / "dashboard.css"):
        text = style.read_text("utf-8")
        assert "@import" not in text
        loaded = re.findall(r"url\(\s*[\"']?(.*?)[\"')]", text)
        assert all(address.startswith(("data:", "#")) for address in loaded)


def test_a_wheel_holds_the_pages_their_files_and_licences(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    packed = {*zipfile.ZipFile(wheel).namelist()}
    dashboard = ROOT / "flask_bitmapist/dashboard"
    needed = [*dashboard.glob("static/**/*.*"), *dashboard.glob("templates/**/*.html")]
    assert len(needed) > 20
    assert {str(file.relative_to(ROOT)) for file in needed} <= packed

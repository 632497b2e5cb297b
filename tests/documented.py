"""The pages of the documentation: their examples, and what they say to install."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```\{code-block\} python\n:caption: (\S+)\n\n(.*?)^```$", re.M | re.S)
#: The line that installs what a page's examples need, as one would type it.
INSTALL = re.compile(r'^\$ pip install "flask-bitmapist(?:\[([\w,-]+)\])?>=1\.0"(.*)$', re.M)

#: What brings a module: extras of ours, or distributions of others. Any of them will do.
BROUGHT_BY = {
    "crawlers": {"crawlers"},
    "embedded://": {"embedded"},
    "flask_login": {"login", "flask-login"},
    "flask_sqlalchemy": {"flask-sqlalchemy"},
    "mongoengine": {"mongoengine"},
    "mongomock": {"mongomock"},
    "peewee": {"peewee"},
    "pytest": {"pytest"},
    "sqlalchemy": {"sqlalchemy"},
}
#: What comes with Flask-Bitmapist itself.
ALWAYS = {"flask", "flask_bitmapist", "numpy", "redis"}
#: Our names that need an extra.
OUR_NAMES = {
    "Bitmapistable": "sqlalchemy",
    "is_crawler": "crawlers",
    "SQLAlchemyBitmapistable": "sqlalchemy",
    "PeeweeBitmapistable": "peewee",
    "MongoEngineBitmapistable": "mongoengine",
}


def example_of(page: Path) -> str:
    """The examples of `page` as one program, each at its own lines of the page."""
    text, program = page.read_text(), ""
    for example in EXAMPLE.finditer(text):
        program += "\n" * (text.count("\n", 0, example.start(1)) - program.count("\n"))
        program += example[1]
    return program


def files_of(page: Path) -> dict[str, str]:
    """The files that `page` shows, by name."""
    return dict(FILE.findall(page.read_text()))


def needs_of(page: Path) -> set[str]:
    """The modules, and kinds of servers, that the examples of `page` need installed."""
    files = files_of(page)
    own = {name.partition("/")[0].removesuffix(".py") for name in files}
    needed: set[str] = set()
    for code in (example_of(page), *files.values()):
        if "embedded://" in code:
            needed.add("embedded://")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                needed |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                needed.add(str(node.module).partition(".")[0])
                names = {alias.name for alias in node.names} & OUR_NAMES.keys()
                needed |= {OUR_NAMES[name] for name in names}
    return needed - own - ALWAYS - sys.stdlib_module_names


def installed_by(page: Path) -> tuple[set[str], set[str]]:
    """Our extras, and the distributions of others, that the install lines of `page` name."""
    lines = INSTALL.findall(page.read_text())
    extras = {extra for names, _ in lines for extra in names.split(",") if extra}
    return extras, {name for _, names in lines for name in names.split()}

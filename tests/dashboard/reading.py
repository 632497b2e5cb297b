"""Reading a page: its elements, tables, links and forms, as a browser takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "wbr"}
#: Texts that stand in a page beside what they explain.
_ASIDE = {"tip", "unseen", "star"}


@dataclass(eq=False)
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """It and all elements in it."""
        pending: list[Element | str] = [self]
        while pending:
            one = pending.pop()
            if isinstance(one, Element):
                yield one
                pending += reversed(one.children)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a kind in it; `class_` is one of an element's classes."""
        class_ = attributes.pop("class_", None)
        return [
            one
            for one in self
            if one.tag == tag
            and (class_ is None or class_ in one.classes)
            and all(one.attributes.get(name) == value for name, value in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    @property
    def raw(self) -> str:
        """All its text, as it stands in the source."""
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)

    @property
    def text(self) -> str:
        """Its text without what explains it, on one line."""
        parts = (
            child if isinstance(child, str) else "" if child.classes & _ASIDE else f" {child.text} "
            for child in self.children
        )
        return re.sub(r"\s+", " ", "".join(parts)).strip()

    @property
    def rows(self) -> list[list[str]]:
        """The text of a table's cells, row by row."""
        return [
            [cell.text for cell in row.children if isinstance(cell, Element)]
            for row in self.all("tr")
        ]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self._here = self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self._here)
        self._here.children.append(element)
        if tag not in _VOID:
            self._here = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self._here)
        self._here.children.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._here.tag == tag, f"</{tag}> closes <{self._here.tag}>"
        assert self._here.parent is not None
        self._here = self._here.parent

    def handle_data(self, data: str) -> None:
        self._here.children.append(data)


def read(html: str) -> Element:
    """The tree of a page, in which every element is closed."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder._here is builder.root, f"<{builder._here.tag}> is not closed"
    return builder.root


def error_of(page: Element) -> list[str]:
    """What a page, or the message instead of one, says of a question that makes no sense."""
    told = [one.raw for one in page if one.attributes.get("role") == "alert"]
    return told or [one.raw for one in page.all("p", class_="lede")]


def figures(page: Element) -> Iterator[tuple[str, int]]:
    """The links of a page to the people behind a number, and the number that is clicked."""
    for link in page.all("a"):
        address = link.attributes["href"]
        parts = urlsplit(address)
        if parts.path.endswith("/people") and parts.query and "format=" not in parts.query:
            yield address, _figure(link)


#: What a bar's tip says of the number that a piece stands for, by the class of the piece.
_TOLD = {
    "new": ("new", "for the first time", "of [\\d,]+ (?:on|in) exactly", "took so long"),
    "returning": ("returning", "of [\\d,]+ used it"),
    "resurrected": ("resurrected",),
    "dormant": ("gone quiet", "of [\\d,]+ left"),
}


def _figure(link: Element) -> int:
    smalls = [one.text for one in link.all("small") if not one.text.endswith("%")]
    if smalls:
        return _number(smalls[0])
    if link.all("text", class_="tip"):
        return _number(link.one("text", class_="tip").raw.partition(": ")[2])
    if link.all("rect"):
        assert link.parent is not None
        tip = link.parent.one("text", class_="tip").raw
        for told in _TOLD[link.one("rect").attributes["class"]]:
            if named := re.search(rf"([\d,]+) {told}", tip):
                return _number(named[1])
    return _number(link.text)


def _number(text: str) -> int:
    found = re.match(r"[\d,]+", text)
    assert found, f"{text!r} is no number"
    return int(found[0].replace(",", ""))


#: The attributes by which an element loads something, leads somewhere, or sends something.
_ADDRESSES = ("href", "src", "action", "formaction", "hx-get", "data", "poster", "srcset")


def addresses(page: Element) -> list[str]:
    """Every address in a page, but for its icon, which is a data: URL, and marks in itself."""
    found = [
        one.attributes[name]
        for one in page
        for name in _ADDRESSES
        if one.attributes.get(name)
        and one.attributes.get("rel") != "icon"
        # A form that sends what is hidden in it leads nowhere without that.
        and not (one.tag == "form" and one.all("input", type="hidden", name="id"))
    ]
    for one in page.all("meta"):
        if one.attributes.get("http-equiv") == "refresh":
            found.append(one.attributes["content"].partition("url=")[2])
    return [address for address in found if not address.startswith("#")]


def asked(page: Element) -> dict[str, Any]:
    """What a page's form would send as it is: name -> values."""
    form = next(one for one in page.all("form") if "ask" in one.classes)
    sent: dict[str, list[str]] = {}
    for one in form:
        name = one.attributes.get("name", "")
        if one.tag == "input":
            choice = one.attributes.get("type") in ("radio", "checkbox")
            if choice and "checked" not in one.attributes:
                continue
            sent.setdefault(name, []).append(one.attributes.get("value", ""))
        elif one.tag == "select":
            options = one.all("option")
            chosen = [option for option in options if "selected" in option.attributes]
            sent.setdefault(name, []).append((chosen or options)[0].attributes["value"])
    return sent

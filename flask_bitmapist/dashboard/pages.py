"""The pages of the dashboard: one table gives addresses, views and the navigation."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from flask import Response


class PageEntry(NamedTuple):
    """A page: its endpoint, its address below the prefix, its name in the navigation."""

    endpoint: str
    address: str
    #: Empty: the navigation does not list it.
    title: str
    #: The module here whose ``view`` answers.
    module: str
    #: Whether it has forms that change something, which are posted to its own address.
    posts: bool = False

    @property
    def methods(self) -> list[str]:
        return ["GET", "POST"] if self.posts else ["GET"]

    @property
    def view(self) -> Callable[[], Response]:
        # Imported when first used: a worker that only marks never loads NumPy.
        view: Callable[[], Response] = import_module(f".{self.module}", __package__).view
        return view


#: In the order of the navigation. The endpoints and addresses of the first two are those of 2016.
PAGES = (
    PageEntry("index", "/", "Overview", "overview"),
    PageEntry("boards", "/boards", "Boards", "boards", posts=True),
    PageEntry("trends", "/trends", "Trends", "trends"),
    PageEntry("cohort", "/cohort", "Retention", "retention"),
    PageEntry("funnel", "/funnel", "Funnel", "funnel"),
    PageEntry("time_to_convert", "/time-to-convert", "", "time_to_convert"),
    PageEntry("conversion", "/conversion", "", "conversion"),
    PageEntry("lifecycle", "/lifecycle", "Lifecycle", "lifecycle"),
    PageEntry("stickiness", "/stickiness", "Stickiness", "stickiness"),
    PageEntry("churned", "/churned", "Churn", "churned"),
    PageEntry("adoption", "/adoption", "Adoption", "adoption"),
    PageEntry("overlap", "/overlap", "Overlap", "overlap"),
    PageEntry("changes", "/changes", "Changes", "changes"),
    PageEntry("compare", "/compare", "Compare", "compare"),
    PageEntry("people", "/people", "People", "people", posts=True),
    PageEntry("person", "/person", "", "person"),
    PageEntry("find", "/find", "", "find"),
)

"""How far users go: the steps of a path."""

from __future__ import annotations

from functools import partial
from typing import get_args

from ..analytics import Funnel
from ..questions import FunnelFigure, FunnelQuestion
from ..questions.funnel import Which
from . import page
from .breakdown import BrokenDownPage
from .page import Behind
from .path_page import PathPage
from .query import Query


class FunnelPage(BrokenDownPage, PathPage):
    """How many took the first of `steps`, then the second, the third..."""

    endpoint = "funnel"
    template = "funnel"
    asks = FunnelQuestion

    def size(self, report: Funnel) -> int:
        return report.steps[0].users

    def behind(self, query: Query) -> Behind:
        steps: list[str] = self["steps"]
        which = query.choice("which", get_args(Which), "reached")
        number = self.number_of_step(query, which)
        taken = steps[:1] if which == "open" else steps[: number - int(which != "reached")]
        figure = FunnelFigure.of(step=number - 1, which=which)
        title = f"took {self.path(taken)}{self.way}{self.rest(number, which)} {self.span}"
        return Behind(title, figure)


view = partial(page.view, FunnelPage)

"""Save the people of a list as a flag: what the form asks, and what became of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Self

from flask import request

from ..analytics import Flag, count
from ..current import current_tracker
from ..flagging import Flagged, check_flag, flag_people
from ..refusals import SERVER_ERRORS
from .page import Behind, Page, Visit

logger = logging.getLogger("flask_bitmapist")


@dataclass(frozen=True, slots=True)
class Saving:
    """A flag to be saved, and how far it has come.

    :ivar flag: its name, as typed.
    :ivar problem: why it was not saved.
    :ivar held: how many have it already: what becomes of them is still to be said.
    :ivar done: what has become of it.
    :ivar status: that of the answer.
    """

    flag: str = ""
    problem: str = ""
    held: int | None = None
    done: Flagged | None = None
    status: int = 200

    @classmethod
    def of_form(cls, visit: Visit, page: Page, behind: Behind) -> Self:
        """Save the people `behind` a figure of `page`, as the form of the current request says."""
        asked = cls(request.form.get("flag", "").strip())
        try:
            return asked._saved(visit, page, behind, request.form.get("existing", ""))
        except ValueError as error:
            return replace(asked, problem=str(error), status=400)
        except SERVER_ERRORS as error:
            logger.error("the flag %r was saved in part, if at all: %s", asked.flag, error)
            problem = (
                "The server failed meanwhile, so the flag may be set for some of them. Save it "
                "again: that is harmless. The application's log says why."
            )
            return replace(asked, problem=problem, status=503)

    def _saved(self, visit: Visit, page: Page, behind: Behind, existing: str) -> Self:
        known = visit.query.known
        check_flag(self.flag, known)
        if self.flag in known.flags and existing not in ("add", "replace"):
            held = count(Flag(self.flag))
            if held:
                return replace(self, held=held)
        if page.problem:
            raise ValueError(page.problem)
        done = flag_people(
            behind.question or page.question,
            behind.figure,
            self.flag,
            replace=existing == "replace",
            tracker=current_tracker(),
        )
        logger.info("the flag %r was set for %d people", done.flag, done.people)
        return replace(self, done=done)

"""Which requests mark nothing: those of crawlers, staff, or people who have not consented."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flask import has_request_context, request

from .faults import logger

#: Whether the current request is to be ignored.
Check = Callable[[], object]

#: The key in a request's environment under which decisions are kept. `flask.g` would not do: all
#: requests that a test makes within one application context share it.
_DECISIONS = "flask_bitmapist.ignored"


class Gate:
    """The checks of one application, which decide once for each request."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    @property
    def has_checks(self) -> bool:
        """Whether any request may be ignored."""
        return bool(self._checks)

    def add(self, check: Check) -> None:
        """Consult `check` from now on. Harmless when repeated."""
        if check not in self._checks:
            self._checks.append(check)

    def is_shut(self) -> bool:
        """Whether marks that are made now are to be left out."""
        if not self._checks or not has_request_context():
            return False
        decisions: dict[Gate, bool] = request.environ.setdefault(_DECISIONS, {})
        if self not in decisions:
            decisions[self] = True  # a check whose own work marks something is not asked again
            decisions[self] = self._decide()
        return decisions[self]

    def _decide(self) -> bool:
        try:
            return any(check() for check in self._checks)
        except Exception:
            logger.exception("a check of bitmapist.ignore failed: the request marks nothing")
            return True


class Gated:
    """A delivery that takes marks one by one, behind a gate."""

    def __init__(self, delivery: Any, gate: Gate) -> None:
        self._delivery = delivery
        self._gate = gate

    def add(self, *mark: Any) -> None:
        """`Delivery.add`, unless the gate is shut."""
        if not self._gate.is_shut():
            self._delivery.add(*mark)


def checked(check: Check) -> Check:
    """`check`, if it can decide on requests.

    :raises TypeError: if it cannot be called, or only awaited.
    """
    if not callable(check):
        raise TypeError(f"ignore() takes a function without arguments, not {check!r}")
    if inspect.iscoroutinefunction(check):
        raise TypeError(f"ignore() takes a function that is not async: {check!r}")
    return check

"""The outage: whether the server takes marks. Its beginning and its end are told, once each."""

from __future__ import annotations

import logging

from ..clients import is_pool_exhausted
from ..refusals import SERVER_ERRORS, refusal
from ..server import Server
from .breaker import Breaker
from .notices import Notices

logger = logging.getLogger("flask_bitmapist")


class Outage:
    """What this process knows of the server's health."""

    def __init__(self, server: Server, fate: str, notices: Notices) -> None:
        """:param fate: what becomes of marks meanwhile."""
        self._server = server
        self._fate = fate
        self._notices = notices
        self.breaker = Breaker()

    @property
    def is_on(self) -> bool:
        """Whether the server failed, and has not worked since."""
        return self.breaker.is_open

    def begin(self, error: Exception) -> bool:
        """The server failed with `error`, in this outage or as its beginning.

        :returns: False if the fault is not the server's.
        """
        if is_pool_exhausted(error):
            # The congestion is our own: the server is fine, and the next mark may get a connection.
            logger.warning(
                "all connections to Redis are in use (%s): marks are %s", error, self._fate
            )
            return False
        if self.breaker.trip():
            reason = refusal(error, self._server.name) or str(error) or type(error).__name__
            logger.warning(
                "Redis does not take marks (%s); until it does they are %s",
                reason,
                self._fate,
                exc_info=None if isinstance(error, SERVER_ERRORS) else error,
            )
            self._notices.degraded("server", reason)
        return True

    def end(self) -> None:
        """The server has just done what it was asked to."""
        if self.breaker.reset():
            logger.warning("Redis takes marks again")
            self._notices.recovered("server")

"""Where faults of analytics end: logged, never raised into the application."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

logger = logging.getLogger("flask_bitmapist")


class SetupError(RuntimeError):
    """The application is set up so that nobody knows whose events are meant."""

    #: What has been logged: it would be the same at each commit, until the program is mended.
    logged: ClassVar[set[str]] = set()


@contextmanager
def contained_faults(doing: str, *arguments: object) -> Iterator[None]:
    """Log what goes wrong inside instead of raising it: analytics never breaks the application."""
    try:
        yield
    except SetupError as error:
        if str(error) not in SetupError.logged:
            SetupError.logged.add(str(error))
            logger.error(f"could not {doing}: %s", *arguments, error)
    except Exception as error:
        unusable = isinstance(error, TypeError | ValueError)
        logger.error(
            f"could not {doing}: %s",
            *arguments,
            getattr(error, "without_id", error),
            exc_info=None if unusable else error,
        )
        logger.debug(f"could not {doing}: %s", *arguments, error)

"""Faults of analytics end here: logged, never raised into the application."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

logger = logging.getLogger("flask_bitmapist")


class SetupError(RuntimeError):
    """The set-up leaves open which app's events are meant."""

    #: What has been logged: each commit would log the same until the program is fixed.
    logged: ClassVar[set[str]] = set()


@contextmanager
def contained_faults(doing: str, *arguments: object) -> Iterator[None]:
    """Log any fault inside instead of raising it: analytics never breaks the application."""
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

"""Where faults of analytics end: logged, never raised into the application."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("flask_bitmapist")


@contextmanager
def contained_faults(doing: str, *arguments: object) -> Iterator[None]:
    """Log what goes wrong inside instead of raising it: analytics never breaks the application."""
    try:
        yield
    except Exception as error:
        unusable = isinstance(error, TypeError | ValueError)
        logger.error(
            f"could not {doing}: %s", *arguments, error, exc_info=None if unusable else error
        )

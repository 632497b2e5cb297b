"""Marks that cannot be written together: which of them can be written, and which cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import redis

from ..marks import Settled, SettledMark, count, parts, singles
from ..refusals import UnfitServerError, need_of

#: Errors that a mark itself always causes, before anything is sent.
UNSENDABLE = (redis.DataError, TypeError, ValueError)
#: How often a batch is divided: enough to find ten refused marks among a thousand. If more are
#: refused, some good marks wait with them, so that the request does not have to.
_DIVISIONS = 200


def sift(
    write: Callable[[Sequence[Settled]], None], marks: Sequence[Settled]
) -> dict[SettledMark, Exception]:
    """Write `marks` in order; returns those that the server refuses, or that cannot be sent.

    :raises redis.RedisError: for whatever else goes wrong in `write`.
    """
    left_out: dict[SettledMark, Exception] = {}
    divisions = _DIVISIONS
    waiting = [marks]
    while waiting:
        part = waiting.pop()
        try:
            write(part)
        except (redis.ResponseError, *UNSENDABLE) as error:
            if isinstance(error, redis.ResponseError) and need_of(error) is None:
                raise
            size = count(part)
            if size == 1 or not divisions or isinstance(error, UnfitServerError):
                left_out |= dict.fromkeys(singles(part), error)
            else:
                divisions -= 1
                waiting += reversed([*parts(part, (size + 1) // 2)])
    return left_out

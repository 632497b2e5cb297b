"""A check for `FlaskBitmapist.ignore`: requests of crawlers."""

from __future__ import annotations

from functools import lru_cache

from flask import request

try:
    import crawleruseragents
except ImportError as error:
    raise ImportError(
        'The list of crawlers is missing: pip install "flask-bitmapist[crawlers]"', name=error.name
    ) from error

#: Characters of a User-Agent that are looked at. Those of browsers are half as long, and the time
#: that the list takes grows with the length: 60,000 characters take a tenth of a second.
_LONGEST = 512


def is_crawler() -> bool:
    """Whether the request comes from a crawler, a monitor or a script that says so.

    The User-Agent is looked up in the list of `crawler-user-agents
    <https://github.com/monperrus/crawler-user-agents>`_. A crawler that pretends to be a browser is
    not recognised.
    """
    return _is_listed(request.user_agent.string[:_LONGEST])


@lru_cache(maxsize=4096)
def _is_listed(user_agent: str) -> bool:
    return bool(crawleruseragents.is_crawler(user_agent))

"""Rates with the interval in which they lie: what a share of few users is worth."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

#: The standard normal's quantile that leaves 2.5 % on either side.
Z_95 = NormalDist().inv_cdf(0.975)


class Rate(NamedTuple):
    """A share of users with its 95 % interval; None throughout if there is nobody to share in."""

    rate: float | None
    low: float | None
    high: float | None


def rate(users: int, size: int) -> Rate:
    """The share `users` of `size`, with Wilson's 95 % score interval.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of
    the American Statistical Association 22 (1927), 209-212. Unlike the textbook's normal interval
    it stays within 0 to 1, and is not empty where nobody or everybody came.

    >>> tuple(round(figure, 4) for figure in rate(5, 10))
    (0.5, 0.2366, 0.7634)
    >>> rate(0, 0)
    Rate(rate=None, low=None, high=None)
    """
    if not size:
        return Rate(None, None, None)
    share, spread = users / size, Z_95**2 / size
    middle = share + spread / 2
    margin = Z_95 * sqrt(share * (1 - share) / size + spread / (4 * size))
    # At the ends one bound is 0 or 1 exactly; rounding would miss it.
    low = (middle - margin) / (1 + spread) if users else 0.0
    high = (middle + margin) / (1 + spread) if users < size else 1.0
    return Rate(share, low, high)

"""Whether one application takes longer than another one that gets the same load: a sign test.

The load is cut into blocks of pairs, one request to each application. A block speaks against the
first one if its 99th percentile is more than a tenth above the other's. If it is not slower, at
most half of the blocks do so, like a coin, of which it is known how seldom it falls on one side how
often. No block is compared with a number of seconds, and what disturbs the machine disturbs both
halves of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, comb

#: Pairs in a block: a 99th percentile of fewer would be the slowest request.
BLOCK = 500
#: How much slower is not told from alike: the mark itself is no secret, it takes some microseconds.
TOLERANCE = 1.1
#: How often a comparison of two that are alike may tell them apart by chance.
LEVEL = 0.001


@dataclass(frozen=True)
class Comparison:
    """In how many of the `blocks` the first of two was slower."""

    slower: int
    blocks: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], size: int = BLOCK) -> Comparison:
        """Compare the 99th percentiles of `pairs`, the seconds of one request to each, in order."""
        blocks = [pairs[end - size : end] for end in range(size, len(pairs) + 1, size)]
        slower = [
            _is_slower([one for one, _ in block], [two for _, two in block]) for block in blocks
        ]
        return cls(sum(slower), len(slower))

    @property
    def chance(self) -> float:
        """How likely two that are alike differ so often, or more often, in this direction."""
        ways = sum(comb(self.blocks, times) for times in range(self.slower, self.blocks + 1))
        return float(ways / 2**self.blocks)

    @property
    def tells_apart(self) -> bool:
        """Whether the first one is slower, and it is not by chance."""
        return self.chance < LEVEL


def _is_slower(first: Sequence[float], second: Sequence[float]) -> bool:
    return percentile(first) > TOLERANCE * percentile(second)


def percentile(seconds: Iterable[float], share: float = 0.99) -> float:
    """The time that a `share` of requests do not exceed."""
    in_order = sorted(seconds)
    return in_order[ceil(share * len(in_order)) - 1]

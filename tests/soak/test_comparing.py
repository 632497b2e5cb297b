"""Two applications are told apart if one is slower, and not if they are alike."""

from __future__ import annotations

import random

import pytest

from .comparing import BLOCK, Comparison

BLOCKS = 60


def pairs(slower: float, *, of: float = 1.0, seed: int = 1) -> list[tuple[float, float]]:
    """Pairs of requests: a share `of` those of the first application takes `slower` times as long.

    The machine is disturbed now and then, and then so are both.
    """
    chance = random.Random(seed)
    made = []
    for _ in range(BLOCKS * BLOCK):
        disturbed = chance.paretovariate(3)
        one, other = (disturbed * chance.uniform(0.8, 1.2) for _ in range(2))
        made.append((one * (slower if chance.random() < of else 1), other))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_two_that_are_alike_are_not_told_apart(seed: int) -> None:
    compared = Comparison.of(pairs(1.0, seed=seed))
    assert compared.blocks == BLOCKS
    assert not compared.tells_apart


def test_one_that_is_slower_is_told_apart() -> None:
    assert Comparison.of(pairs(1.3)).tells_apart
    assert Comparison.of(pairs(8.0, of=0.02)).tells_apart  # in few requests, but much


def test_a_few_blocks_tell_nothing() -> None:
    assert not Comparison.of(pairs(1.3)[: 5 * BLOCK]).tells_apart

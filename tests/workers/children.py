"""Processes that mark and end, as `multiprocessing` starts and ends them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from workers.marking import mark


def mark_each(ids: range) -> None:
    for id_ in ids:
        mark(id_)


def parts(ids: int, size: int) -> list[range]:
    return [range(first, first + size) for first in range(0, ids, size)]


def run(way: str, ids: int) -> None:
    """Mark as many `ids` in children, which are made in this `way`."""
    if way == "os.fork":
        for part in parts(ids, 50):
            if os.fork() == 0:
                mark_each(part)
                os._exit(0)
            os.wait()
    elif way == "ProcessPoolExecutor":
        with ProcessPoolExecutor(2) as pool:
            [*pool.map(mark_each, parts(ids, 20))]
    else:
        context: Any = multiprocessing.get_context(way)
        children = [context.Process(target=mark_each, args=(part,)) for part in parts(ids, 100)]
        for child in children:
            child.start()
        for child in children:
            child.join()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))

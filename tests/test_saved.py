"""Saved boards and questions: nothing is lost, and nothing hostile gets out."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis, RedisCluster

from flask_bitmapist import chart
from flask_bitmapist.boards import Board, Chart
from flask_bitmapist.saved import (
    BOARDS,
    MOST,
    Saved,
    add_chart,
    change,
    delete,
    save,
    saved,
)

A, B = chart("A", "trend", event="a"), chart("B", "trend", event="b & flag:c")
WEEKLY = Board("Weekly", (A,))


def test_boards_and_questions_are_kept_apart(redis: Redis) -> None:
    board, question = save(redis, WEEKLY), save(redis, B)
    assert saved(redis) == Saved({board: WEEKLY}, {question: B})


def test_they_are_listed_by_name(redis: Redis) -> None:
    for name in ("b", "A", "C"):
        save(redis, Board(name, (A,)))
        save(redis, chart(name, "trend", event="a"))
    there = saved(redis)
    assert [board.name for board in there.boards.values()] == ["A", "b", "C"]
    assert [question.title for question in there.questions.values()] == ["A", "b", "C"]


def test_charts_are_added_at_the_end(redis: Redis) -> None:
    id_ = save(redis, WEEKLY)
    add_chart(redis, id_, B)
    assert saved(redis).boards[id_] == Board("Weekly", (A, B))


def test_what_many_save_at_once_is_all_there(redis: Redis) -> None:
    id_ = save(redis, Board("Weekly", ()))
    titles = [f"T{number}" for number in range(12)]

    def add(title: str) -> None:
        add_chart(redis, id_, chart(title, "trend", event="a"))
        save(redis, chart(title, "trend", event="a"))

    with ThreadPoolExecutor(6) as pool:
        [*pool.map(add, titles)]
    there = saved(redis)
    assert sorted(one.title for one in there.boards[id_].charts) == sorted(titles)
    assert len(there.questions) == 12


def test_what_is_changed_meanwhile_is_changed_again(redis: Redis) -> None:
    id_ = save(redis, WEEKLY)
    seen: list[Any] = []

    def renamed(thing: Board | Chart) -> Board:
        assert isinstance(thing, Board)
        if not seen:
            add_chart(redis, id_, B)  # as somebody else would
        seen.append(thing.charts)
        return Board("Monthly", thing.charts)

    change(redis, id_, renamed)
    assert seen == [(A,), (A, B)]
    assert saved(redis).boards[id_] == Board("Monthly", (A, B))


def test_two_boards_of_one_name_are_refused(redis: Redis) -> None:
    first = save(redis, WEEKLY)
    other = save(redis, Board("Other", ()))
    with pytest.raises(ValueError, match="there is a board called 'Weekly'"):
        save(redis, WEEKLY)
    with pytest.raises(ValueError, match="there is a board called 'Weekly'"):
        change(redis, other, lambda board: WEEKLY)
    change(redis, first, lambda board: WEEKLY)
    save(redis, chart("Weekly", "trend", event="a"))


def test_what_is_deleted_is_gone_and_nothing_comes_back(redis: Redis) -> None:
    id_ = save(redis, WEEKLY)
    delete(redis, id_)
    delete(redis, id_)
    with pytest.raises(ValueError, match="no longer there"):
        add_chart(redis, id_, B)
    assert not redis.exists(BOARDS)


def test_a_board_is_full_at_some_point(redis: Redis) -> None:
    id_ = save(redis, Board("Weekly", (A,) * 12))
    with pytest.raises(ValueError, match="'Weekly' is full"):
        add_chart(redis, id_, B)
    question = save(redis, A)
    with pytest.raises(ValueError, match="is a question, not a board"):
        add_chart(redis, question, B)


def test_there_is_room_for_many_not_for_any_number(redis: Redis) -> None:
    redis.hset(BOARDS, mapping={str(number): "somebody's" for number in range(MOST)})
    with pytest.raises(ValueError, match="200 boards and questions are saved"):
        save(redis, WEEKLY)
    assert redis.hlen(BOARDS) == MOST


def test_one_has_a_largest_size(redis: Redis) -> None:
    long = " | ".join(f"{'x' * 90}{number}" for number in range(90))
    charts = tuple(chart(f"{n}", "funnel", steps=[long, "b"] * 4) for n in range(12))
    with pytest.raises(ValueError, match="are the most"):
        save(redis, Board("Weekly", charts))
    assert not redis.exists(BOARDS)


PLAIN = {"title": "A", "report": "trend", "question": {"event": "a"}}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 60_000,
        b'{"version": 1, "question": ' + b"[" * 50_000,
        b"9" * 10_000,
        json.dumps({"version": 2, "question": PLAIN}),
        json.dumps({"version": True, "board": PLAIN}),
        json.dumps({"version": 1, "question": PLAIN, "more": 1}),
        json.dumps({"version": 1, "question": {**PLAIN, "report": "os.system"}}),
        json.dumps({"version": 1, "question": {**PLAIN, "question": {"event": "a &"}}}),
        json.dumps({"version": 1, "question": {**PLAIN, "question": {"event": "(" * 3_000}}}),
        json.dumps({"version": 1, "question": {**PLAIN, "question": {"event": "a", "rows": 1e9}}}),
        json.dumps({"version": 1, "question": {**PLAIN, "question": {"event": None}}}),
        json.dumps(
            {
                "version": 1,
                "question": {**PLAIN, "report": "funnel", "question": {"steps": ["a", None]}},
            }
        ),
        json.dumps(
            {"version": 1, "question": {**PLAIN, "question": {"event": "a", "breakdown": [None]}}}
        ),
        json.dumps({"version": 1, "board": {"name": "\u202e\x00", "charts": []}}),
        json.dumps({"version": 1, "board": {"name": "B", "charts": [PLAIN] * 13}}),
        json.dumps({"version": 1, "question": {**PLAIN, "title": "x" * 70_000}}),
    ],
)
def test_what_cannot_be_read_is_counted_and_left_as_it_is(
    redis: Redis, record: str | bytes
) -> None:
    redis.hset(BOARDS, b"\xffhostile", record)
    id_ = save(redis, WEEKLY)
    add_chart(redis, id_, B)
    assert saved(redis) == Saved({id_: Board("Weekly", (A, B))}, {}, 1)
    assert redis.hget(BOARDS, b"\xffhostile") == (
        record if isinstance(record, bytes) else record.encode()
    )


def test_a_client_that_decodes_reads_it_too(redis: Redis, redis_url: str) -> None:
    redis.hset(BOARDS, b"\xff", b"\xff")
    with Redis.from_url(redis_url, decode_responses=True) as decoding:
        id_ = save(decoding, WEEKLY)
        assert saved(decoding) == Saved({id_: WEEKLY}, {}, 1)


def test_a_cluster_keeps_it_too(clusters: Any) -> None:
    with RedisCluster.from_url(clusters(3).url) as client:
        id_ = save(client, WEEKLY)
        add_chart(client, id_, B)
        assert saved(client).boards == {id_: Board("Weekly", (A, B))}
        delete(client, id_)
        assert saved(client) == Saved({}, {})

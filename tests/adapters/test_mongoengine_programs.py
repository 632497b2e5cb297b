"""Random programs of transactions: what is marked is what changed between their ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mongoengine import BooleanField, Document, IntField
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database

from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable

from .marks import Marks

pytest_plugins = ["adapters.mongodb"]

KEYS = 5
fresh = count(1)


class Stone(MongoEngineBitmapistable, Document):
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("hot",)

    key = IntField(primary_key=True)
    #: Never the same twice: every write can be seen.
    weight = IntField()
    hot = BooleanField(default=False)


def fresh_stone(key: int, hot: bool) -> Stone:
    return Stone(key=key, weight=next(fresh), hot=hot)


def save(key: int, hot: bool) -> None:
    fresh_stone(key, hot).save()


def insert(key: int, hot: bool) -> None:
    free = [each for each in range(key, KEYS) if not Stone.objects(key=each)]
    if free:
        Stone.objects.insert([fresh_stone(each, hot) for each in free])


def change(key: int, hot: bool) -> None:
    for stone in Stone.objects(key=key):
        stone.weight, stone.hot = next(fresh), hot
        stone.save()


def delete(key: int, hot: bool) -> None:
    Stone(key=key).delete()


def delete_many(key: int, hot: bool) -> None:
    Stone.objects(key__gte=key).delete()


def update(key: int, hot: bool) -> None:
    Stone.objects(key__gte=key).update(weight=next(fresh), hot=hot)


def update_one(key: int, hot: bool) -> None:
    Stone.objects(key__lte=key).update_one(weight=next(fresh), hot=hot)


def upsert(key: int, hot: bool) -> None:
    Stone.objects(key=key).update_one(upsert=True, weight=next(fresh), hot=hot)


def modify(key: int, hot: bool) -> None:
    Stone.objects(key=key).modify(upsert=hot, weight=next(fresh), hot=hot)


def remove(key: int, hot: bool) -> None:
    Stone.objects(key__gte=key).modify(remove=True)


STEPS = [save, insert, change, delete, delete_many, update, update_one, upsert, modify, remove]
steps = st.tuples(st.sampled_from(STEPS), st.integers(0, KEYS - 1), st.booleans())
blocks = st.tuples(st.sampled_from(["commit", "abort", "none"]), st.lists(steps, max_size=6))


class AbortedError(Exception):
    pass


def run(
    client: MongoClient[Any], ending: str, block: list[tuple[Callable[..., None], int, bool]]
) -> None:
    def work() -> None:
        for step, key, hot in block:
            step(key, hot)

    if ending == "none":
        work()
        return
    session = client.start_session()
    with suppress(AbortedError), session.bind(), session.start_transaction():
        work()
        if ending == "abort":
            raise AbortedError


def snapshot(database: Database[Any]) -> dict[int, dict[str, Any]]:
    return {document["_id"]: document for document in database.stone.find()}


def changed(before: dict[int, Any], after: dict[int, Any]) -> dict[str, list[int]]:
    marks = {
        "stone:created": sorted(after.keys() - before.keys()),
        "stone:updated": sorted(k for k in after.keys() & before.keys() if after[k] != before[k]),
        "stone:deleted": sorted(before.keys() - after.keys()),
    }
    return {event: keys for event, keys in marks.items() if keys}


@pytest.mark.skipif(not hasattr(ClientSession, "bind"), reason="PyMongo < 4.17 binds no sessions")
@given(program=st.lists(blocks, max_size=5))
def test_marks_are_what_changed(server_database: Database[Any], marks: Marks, program: Any) -> None:
    client = server_database.client
    if "setName" not in client.admin.command("hello"):
        pytest.skip("transactions need a replica set")
    Stone.ensure_indexes()
    server_database.stone.delete_many({})
    marks.forget()
    for ending, block in program:
        for part in [[step] for step in block] if ending == "none" else [block]:
            before, flags = snapshot(server_database), marks.flags().get("stone:hot", [])
            assert flags == sorted(key for key, stone in before.items() if stone["hot"])
            # The flags have to stay.
            for event in ("created", "updated", "deleted"):
                marks.forget_event(f"stone:{event}")
            run(client, ending, part)
            assert marks() == changed(before, snapshot(server_database))

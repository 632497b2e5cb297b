"""Random programs of transactions: the marks are the difference of the table's snapshots.

``FUZZ_EXAMPLES=5000`` runs as many programs instead of the few of everyday; the URLs of empty
databases in ``TEST_POSTGRESQL_URL`` and ``TEST_MYSQL_URL`` run them there too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import (
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    String,
    case,
    create_engine,
    delete,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column
from sqlalchemy.pool import StaticPool

from flask_bitmapist import Bitmapistable
from flask_bitmapist.adapters.sqlalchemy import record

from .engines import sqlite_engine
from .marks import Marks


class Base(DeclarativeBase):
    pass


class Item(Base, Bitmapistable):
    """Odd keys; an even one is a `Special`."""

    __tablename__ = "item"
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("hot",)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    value: Mapped[int] = mapped_column(unique=True)
    hot: Mapped[bool] = mapped_column(default=False)


class Special(Item):
    __mapper_args__ = {"polymorphic_identity": "special"}


class Note(Base, Bitmapistable):
    """Marked for its author; the database gives the keys."""

    __tablename__ = "note"
    __bitmapist_bulk__ = True
    __bitmapist_id__ = "author"
    __bitmapist_flags__ = ("hot",)

    id: Mapped[int] = mapped_column(primary_key=True)
    author: Mapped[int] = mapped_column(unique=True)
    value: Mapped[int] = mapped_column(unique=True)
    hot: Mapped[bool] = mapped_column(default=False)


class Orphan(Base):
    """Its foreign key is checked by COMMIT."""

    __tablename__ = "orphan"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[int] = mapped_column(ForeignKey("item.id", deferrable=True, initially="DEFERRED"))


@compiles(ForeignKeyConstraint, "mysql", "mariadb")
def _checked_at_once(constraint: ForeignKeyConstraint, compiler: Any, **options: Any) -> str:
    """MariaDB knows no DEFERRABLE."""
    deferral = constraint.deferrable, constraint.initially
    constraint.deferrable = constraint.initially = None
    try:
        return str(compiler.visit_foreign_key_constraint(constraint, **options))
    finally:
        constraint.deferrable, constraint.initially = deferral


KEYS = range(1, 9)
keys = st.sampled_from(KEYS)
flags = st.booleans()
#: (event name, marked id) -> (value, hot)
Snapshot = dict[tuple[str, int], tuple[int, bool]]


class Programs(RuleBasedStateMachine):
    """One session in one database; nothing else writes there."""

    def __init__(self, engine: Engine, marks: Marks) -> None:
        super().__init__()
        self.engine = engine
        self.marks = marks
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        marks.forget()
        self.session = Session(engine)
        self.savepoints: list[SessionTransaction] = []
        #: The caller's own marks, for each open transaction.
        self.recorded: list[set[int]] = [set()]
        self.fresh = itertools.count(1)
        self.before: Snapshot = {}
        self.session.add_all(
            self.model(key)(id=key, value=next(self.fresh), hot=key > 2) for key in KEYS[::2]
        )
        self.session.add_all(Special(id=key, value=next(self.fresh)) for key in (2, 4))
        self.add_note(hot=True)
        self.commit()

    def teardown(self) -> None:
        self.session.close()
        assert not self.session.info

    # What is there, and what becomes of errors.

    def snapshot(self) -> Snapshot:
        with self.engine.connect() as connection:
            items = connection.execute(text("SELECT kind, id, value, hot FROM item")).all()
            notes = connection.execute(text("SELECT 'note', author, value, hot FROM note")).all()
        return {(name, id_): (value, bool(hot)) for name, id_, value, hot in [*items, *notes]}

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """An IntegrityError costs the innermost transaction."""
        try:
            yield
            self.session.flush()
        except IntegrityError:
            if self.savepoints:
                self.undo(self.savepoints[-1])
            else:
                self.undo_all()

    def undo(self, savepoint: SessionTransaction) -> None:
        index = self.savepoints.index(savepoint)
        del self.savepoints[index:], self.recorded[index + 1 :]
        savepoint.rollback()
        # The rows of bulk statements are gone, and the session still holds what it loaded of them.
        self.session.expunge_all()

    def undo_all(self) -> None:
        self.savepoints, self.recorded = [], [set()]
        self.session.rollback()

    def one(self, index: int, *, of_notes: bool = False) -> list[Any]:
        """A row, if there is any."""
        rows = self.notes() if of_notes else self.items()
        return rows[index % len(rows) :][:1] if rows else []

    def items(self) -> list[Any]:
        return list(self.session.scalars(select(Item).order_by(Item.id)))

    def notes(self) -> list[Any]:
        return list(self.session.scalars(select(Note).order_by(Note.id)))

    def free_keys(self, wanted: Iterable[int]) -> list[int]:
        taken = {item.id for item in self.items()}
        return [key for key in dict.fromkeys(wanted) if key not in taken]

    @staticmethod
    def model(key: int) -> type[Item]:
        return Item if key % 2 else Special

    # Objects.

    @rule(key=keys, hot=flags, flush=flags)
    def add_item(self, key: int, hot: bool, flush: bool) -> None:
        with self.surviving():
            for free in self.free_keys([key]):
                self.session.add(self.model(free)(id=free, value=next(self.fresh), hot=hot))
        if flush:
            with self.surviving():
                self.session.flush()

    @rule(hot=flags)
    def add_note(self, hot: bool) -> None:
        number = next(self.fresh)
        with self.surviving():
            self.session.add(Note(author=10_000 + number, value=number, hot=hot))

    @rule(index=keys, hot=st.none() | flags, expression=flags, of_notes=flags)
    def update_object(self, index: int, hot: bool | None, expression: bool, of_notes: bool) -> None:
        with self.surviving():
            for row in self.one(index, of_notes=of_notes):
                fresh = next(self.fresh)
                row.value = literal(fresh) + 0 if expression else fresh
                if hot is not None:
                    row.hot = case((literal(hot), True), else_=False) if expression else hot

    @rule(index=keys, of_notes=flags)
    def delete_object(self, index: int, of_notes: bool) -> None:
        with self.surviving():
            for row in self.one(index, of_notes=of_notes):
                self.session.delete(row)

    @rule(index=keys, hot=flags)
    def switch_rows(self, index: int, hot: bool) -> None:
        """Delete one and add another with its key, in one flush."""
        with self.surviving(), self.session.no_autoflush:
            for row in self.one(index):
                self.session.delete(row)
                self.session.add(type(row)(id=row.id, value=next(self.fresh), hot=hot))

    @rule(key=keys)
    def merge(self, key: int) -> None:
        with self.surviving():
            self.session.merge(self.model(key)(id=key, value=next(self.fresh), hot=True))

    @rule(expunge=flags)
    def forget_objects(self, expunge: bool) -> None:
        with self.surviving():
            self.session.flush()
        if expunge:
            self.session.expunge_all()
        else:
            self.session.expire_all()

    @precondition(lambda self: self.savepoints)
    @rule(bulk=flags)
    def violate_a_constraint(self, bulk: bool) -> None:
        with self.surviving():
            items = self.items()
            row = {"author": next(self.fresh), "hot": True}
            self.session.add(Note(**row, value=next(self.fresh)))
            if items:
                items[0].value = taken = next(self.fresh)
                twice = [{"id": 98, "value": next(self.fresh)}, {"id": 99, "value": taken}]
                if bulk:
                    self.session.execute(insert(Special), twice)
                else:
                    self.session.add_all(Special(**one) for one in twice)

    @rule()
    def record_own_mark(self) -> None:
        if self.session.in_transaction():
            number = next(self.fresh)
            record(self.session, ("own", number))
            self.recorded[-1].add(number)

    # Bulk statements.

    @rule(wanted=st.lists(keys, min_size=1, max_size=3), hot=flags)
    def bulk_insert_with_keys(self, wanted: list[int], hot: bool) -> None:
        with self.surviving():
            for model in (Item, Special):
                rows = [
                    {"id": key, "value": next(self.fresh), "hot": hot}
                    for key in self.free_keys(wanted)
                    if self.model(key) is model
                ]
                if rows:
                    self.session.execute(insert(model), rows)

    @rule(form=st.sampled_from(["list", "values", "many values", "returning", "select"]), hot=flags)
    def bulk_insert_without_keys(self, form: str, hot: bool) -> None:
        def row() -> dict[str, Any]:
            number = next(self.fresh)
            return {"author": 10_000 + number, "value": number, "hot": hot}

        with self.surviving():
            if form == "list":
                self.session.execute(insert(Note), [row(), row()])
            elif form == "values":
                self.session.execute(insert(Note).values(**row()))
            elif form == "many values":
                self.session.execute(insert(Note).values([row(), row()]))
            elif form == "returning":
                notes = self.session.scalars(insert(Note).returning(Note), [row(), row()]).all()
                notes[0].value = next(self.fresh)
            else:
                source = select(*(literal(value) for value in row().values()))
                self.session.execute(insert(Note).from_select(list(row()), source))

    @rule(key=keys)
    def upsert_that_does_nothing(self, key: int) -> None:
        row = {"id": key, "kind": self.model(key).__name__.lower(), "value": next(self.fresh)}
        with self.surviving():
            self.session.execute(self.insert_or_ignore().values(**row, hot=True))

    def insert_or_ignore(self) -> Any:
        """Each dialect's own form."""
        name = self.engine.dialect.name
        if name == "mysql":
            return insert(Item).prefix_with("IGNORE")
        return import_module(f"sqlalchemy.dialects.{name}").insert(Item).on_conflict_do_nothing()

    @rule(below=keys, hot=st.none() | flags, legacy=flags, of_notes=flags)
    def bulk_update(self, below: int, hot: bool | None, legacy: bool, of_notes: bool) -> None:
        model: Any = Note if of_notes else Item
        values = {"value": model.id + 1000 * next(self.fresh)}
        if hot is not None:
            values["hot"] = case((model.id % 3 == 0, not hot), else_=hot)
        with self.surviving():
            if legacy:
                self.session.query(model).filter(model.id < below).update(values)
            else:
                self.session.execute(update(model).where(model.id < below).values(**values))

    @rule(below=keys, hot=flags)
    def bulk_update_of_a_subclass(self, below: int, hot: bool) -> None:
        statement = update(Special).where(Special.id < below)
        if self.engine.dialect.update_returning:
            statement = statement.returning(Special.value)
        with self.surviving():
            value = Special.id + 1000 * next(self.fresh)
            self.session.execute(statement.values(value=value, hot=hot))

    @rule(indices=st.sets(keys), hot=flags)
    def bulk_update_by_key(self, indices: set[int], hot: bool) -> None:
        with self.surviving():
            rows = [
                {"id": item.id, "value": next(self.fresh), "hot": hot}
                for index, item in enumerate(self.items())
                if index in indices
            ]
            if rows:
                self.session.execute(update(Item), rows)

    @rule(below=keys, legacy=flags, of_notes=flags)
    def bulk_delete(self, below: int, legacy: bool, of_notes: bool) -> None:
        model: Any = Note if of_notes else Item
        with self.surviving():
            if legacy:
                self.session.query(model).filter(model.id < below).delete()
            else:
                self.session.execute(delete(model).where(model.id < below))

    # Transactions.

    @precondition(lambda self: len(self.savepoints) < 4)
    @rule()
    def begin_savepoint(self) -> None:
        with self.surviving():
            self.savepoints.append(self.session.begin_nested())
            self.recorded.append(set())

    @precondition(lambda self: self.savepoints)
    @rule()
    def release_savepoint(self) -> None:
        with self.surviving():
            self.session.flush()
        if self.savepoints:
            self.savepoints.pop().commit()
            released = self.recorded.pop()
            self.recorded[-1] |= released

    @precondition(lambda self: self.savepoints)
    @rule(depth=st.integers(0, 3))
    def roll_back_savepoint(self, depth: int) -> None:
        """The innermost, or one around it."""
        self.undo(self.savepoints[max(0, len(self.savepoints) - 1 - depth)])

    @rule(how=st.sampled_from(["commit"] * 6 + ["roll back", "close", "fail"]))
    def end_transaction(self, how: str) -> None:
        if how == "commit":
            self.commit()
        elif how == "fail":
            self.fail_to_commit()
        else:
            self.undo_all()
            if how == "close":
                self.session.close()

    def fail_to_commit(self) -> None:
        with suppress(IntegrityError):
            self.session.execute(text("INSERT INTO orphan (item) VALUES (404)"))
            self.session.commit()
            raise AssertionError("the deferred foreign key was not checked")
        self.undo_all()
        assert self.snapshot() == self.before
        assert self.marks() == {}

    def commit(self) -> None:
        with self.surviving():
            self.session.flush()
        while self.session.in_transaction():
            self.session.commit()
        recorded = set().union(*self.recorded)
        self.savepoints, self.recorded = [], [set()]
        before, self.before = self.before, self.snapshot()
        assert self.marks() == expected_marks(before, self.before, recorded)
        assert self.marks.flags() == expected_flags(self.before)
        assert not self.session.info
        self.marks.forget_days()


def expected_marks(before: Snapshot, after: Snapshot, recorded: set[int]) -> dict[str, list[int]]:
    expected: dict[str, list[int]] = {"own": sorted(recorded)} if recorded else {}
    for name, id_ in sorted(before.keys() | after.keys()):
        old, new = before.get((name, id_)), after.get((name, id_))
        if old != new:
            action = "created" if old is None else "deleted" if new is None else "updated"
            expected.setdefault(f"{name}:{action}", []).append(id_)
    return expected


def expected_flags(rows: Snapshot) -> dict[str, list[int]]:
    expected: dict[str, list[int]] = {}
    for (name, id_), (_, hot) in sorted(rows.items()):
        if hot:
            expected.setdefault(f"{name}:hot", []).append(id_)
    return expected


@pytest.fixture(params=["sqlite", "TEST_POSTGRESQL_URL", "TEST_MYSQL_URL"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = sqlite_engine("sqlite://", poolclass=StaticPool)
    elif request.param in os.environ:
        engine = create_engine(os.environ[request.param])
    else:
        pytest.skip(f"{request.param} is not set")
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_marks_are_the_difference_of_snapshots(engine: Engine, marks: Marks) -> None:
    examples = os.environ.get("FUZZ_EXAMPLES")
    usual = 60 if engine.dialect.name == "sqlite" else 30
    programs: Any = partial(Programs, engine, marks)  # any callable will do
    run_state_machine_as_test(
        programs,
        settings=settings(
            max_examples=int(examples or usual),
            # Shrinking takes minutes.
            phases=set(Phase) if examples else {Phase.reuse, Phase.generate},
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

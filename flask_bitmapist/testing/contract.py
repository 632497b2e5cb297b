"""The contract of an adapter: a class of tests that every adapter passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args
from uuid import UUID, uuid4

import pytest
from flask import Flask

from ..delivery.spool import Spool, server_of
from ..dimensions import Dimension
from ..extension import FlaskBitmapist
from ..ids import normal_form
from ..marks import Mark
from ..tracker import Tracker
from .recorded import RecordedMarks, record_marks

_Test = TypeVar("_Test", bound=Callable[..., None])

#: What an ORM, a database or an adapter may be unable to do: the keys of `AdapterContract.cannot`.
Capability = Literal[
    "transactions",
    "savepoints",
    "unchanged values",
    "failing writes",
    "inheritance",
    "textual keys",
    "uuid keys",
    "composite keys",
    "bulk insert",
    "bulk update",
    "bulk delete",
    "threads",
]


def _needs(*capabilities: Capability) -> Callable[[_Test], _Test]:
    """Skip a test of the contract where `AdapterContract.cannot` names one of `capabilities`."""

    def decorate(test: _Test) -> _Test:
        test.needs = capabilities  # type: ignore[attr-defined]
        return test

    return decorate


class ContractOrm(ABC):
    """What the contract asks of an ORM and its adapter: a dozen short methods.

    Every write is sent to the database at once (``flush``), so that its key is known; rows may be
    used in a later transaction than the one that made them. The contract makes all writes inside
    `transaction`.
    """

    @abstractmethod
    def model(
        self,
        name: str,
        *,
        parent: Any = None,
        key: type[str] | type[UUID] | type[tuple[str, int]] | None = None,
        **options: Any,
    ) -> Any:
        """Declare a tracked model, ready for use: its table exists, and its options are checked.

        Besides the key it has the optional attributes ``name`` (text), ``premium`` (boolean, False
        unless given) and ``author`` (integer).

        :param parent: another model of this factory, which it inherits from.
        :param key: None: the ORM's own generated key ``id``; `str` or `UUID`: a key ``id`` of
            that type, whose values the contract gives; `tuple`: a composite key of ``team`` (text)
            and ``number`` (integer), whose values the contract gives.
        :param options: what goes into the body of the class: ``__bitmapist_name__="member"``.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction of the current thread: it commits, or rolls back after an exception."""

    def savepoint(self) -> AbstractContextManager[Any]:
        """A savepoint inside `transaction` or another savepoint: released, or rolled back to."""
        raise NotImplementedError("savepoint()")

    @abstractmethod
    def create(self, model: Any, **values: Any) -> Any:
        """INSERT a row and return it; raise the database's error if its key exists already."""

    @abstractmethod
    def update(self, row: Any, **values: Any) -> None:
        """Assign `values`, if any, to attributes of `row`, and save it."""

    @abstractmethod
    def delete(self, row: Any) -> None:
        """DELETE `row`."""

    @abstractmethod
    def count(self, model: Any) -> int:
        """The number of stored rows of `model`; called outside `transaction`."""

    @abstractmethod
    def record(self, *marks: Mark | tuple[Any, ...]) -> None:
        """Call the adapter's ``record``, inside or outside a transaction."""

    def key(self, row: Any) -> Any:
        """The primary key of a stored `row`, a tuple if it is composite."""
        return row.id

    def bulk_insert(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """INSERT `rows` with one statement."""
        raise NotImplementedError("bulk_insert()")

    def bulk_update(self, model: Any, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """UPDATE with one statement the rows whose attributes equal those of `where`."""
        raise NotImplementedError("bulk_update()")

    def bulk_delete(self, model: Any, where: Mapping[str, Any]) -> None:
        """DELETE with one statement the rows whose attributes equal those of `where`."""
        raise NotImplementedError("bulk_delete()")


class Marked(Protocol):
    """Where the contract reads what was marked: `RecordedMarks`, or the bitmaps of a server."""

    def events(self, on: date | None = None) -> dict[str, set[int | str]]:
        """The ids of each event on the day `on`, or on any day; events without any left out."""

    def flags(self) -> dict[str, set[int | str]]:
        """The ids that each flag is set for; flags without any left out."""


class _AbandonedError(Exception):
    """What the contract raises inside a transaction."""


@contextmanager
def abandoned(transaction: AbstractContextManager[Any]) -> Iterator[None]:
    """Run the body in `transaction` (or a savepoint), and end it with an exception."""
    with suppress(_AbandonedError), transaction:
        yield
        raise _AbandonedError


def _id(orm: ContractOrm, row: Any) -> int | str:
    return normal_form(orm.key(row))


class AdapterContract:
    """What every adapter does, as tests: subclass it, and give it the fixture `orm`.

    ::

        class TestTinyStore(AdapterContract):
            cannot = {"composite keys": "a TinyStore key is one value"}

            @pytest.fixture
            def orm(self):
                store = TinyStore()
                yield TinyStoreOrm(store)     # a ContractOrm
                store.close()

    `ContractOrm` says what this object has to do. Each test gets a fresh one, declares the models
    that it needs, writes real rows in real transactions, and compares everything that was marked.
    Where the ORM or the adapter lacks what a test needs, it is skipped with the reason given in
    `cannot`. The docstring of a test is its row in the documentation's table.

    By default marks are recorded in memory. To read those of a real server, override the fixtures
    `redis_url` and `marked`.
    """

    #: What the ORM, its database or the adapter cannot do, and why.
    cannot: ClassVar[Mapping[Capability, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = set(cls.cannot) - set(get_args(Capability))
        if unknown:
            raise TypeError(
                f"{cls.__name__}.cannot names {sorted(unknown)}; "
                f"it takes some of {get_args(Capability)}"
            )

    # Fixtures

    @pytest.fixture(autouse=True)
    def _skip_what_the_orm_cannot(self, request: pytest.FixtureRequest) -> None:
        for capability in getattr(request.function, "needs", ()):
            if capability in self.cannot:
                pytest.skip(f"{capability}: {self.cannot[capability]}")

    @pytest.fixture
    def orm(self) -> Any:
        """A fresh `ContractOrm`."""
        raise NotImplementedError(f"{type(self).__name__} lacks the fixture `orm`")

    @pytest.fixture
    def redis_url(self) -> str:
        """The server of the contract's application: none is needed, as `marked` is in memory."""
        return "unix:///nonexistent/bitmapist.sock"

    @pytest.fixture(autouse=True)
    def app(self, redis_url: str, tmp_path: Path) -> Flask:
        """The application whose marks are read; no context of it is pushed."""
        app = Flask("contract", instance_path=str(tmp_path / "instance"))
        app.config["BITMAPIST_REDIS_URL"] = redis_url
        # Registering the dashboard's routes takes most of the time of setting up an application.
        app.config["BITMAPIST_DISABLE_BLUEPRINT"] = True
        FlaskBitmapist(app)
        return app

    @pytest.fixture
    def tracker(self, app: Flask) -> Tracker:
        """The tracker of `app`."""
        return app.extensions["bitmapist"].tracker_of(app)  # type: ignore[no-any-return]

    @pytest.fixture
    def recorded(self) -> Iterator[RecordedMarks]:
        """The marks, recorded in memory."""
        with record_marks() as recorded:
            yield recorded

    @pytest.fixture
    def marked(self, recorded: RecordedMarks) -> Marked:
        """What is marked, as most tests see it."""
        return recorded

    # Rows

    def test_a_created_row_is_marked(self, orm: ContractOrm, marked: Marked) -> None:
        """A row is created"""
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
        assert marked.events() == {"account:created": {_id(orm, row)}}
        assert marked.flags() == {}

    def test_an_updated_row_is_marked(self, orm: ContractOrm, marked: Marked) -> None:
        """A row is updated"""
        account = orm.model("Account", __bitmapist_events__=("updated",))
        with orm.transaction():
            row, _ = orm.create(account), orm.create(account)
        with orm.transaction():
            orm.update(row, name="Ann")
        assert marked.events() == {"account:updated": {_id(orm, row)}}

    def test_a_deleted_row_is_marked_with_the_id_it_had(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A row is deleted"""
        account = orm.model("Account", __bitmapist_events__=("deleted",))
        with orm.transaction():
            row, _ = orm.create(account), orm.create(account)
        id_ = _id(orm, row)
        with orm.transaction():
            orm.delete(row)
        assert marked.events() == {"account:deleted": {id_}}

    def test_saving_an_unchanged_row_marks_nothing(self, orm: ContractOrm, marked: Marked) -> None:
        """A row is saved with no attribute assigned: nothing is marked"""
        account = orm.model("Account", __bitmapist_events__=("updated",))
        with orm.transaction():
            row = orm.create(account, name="Ann")
        with orm.transaction():
            orm.update(row)
        assert marked.events() == {}

    @_needs("unchanged values")
    def test_assigning_the_same_value_marks_nothing(self, orm: ContractOrm, marked: Marked) -> None:
        """An attribute is assigned the value it already has: nothing is marked"""
        account = orm.model("Account", __bitmapist_events__=("updated",))
        with orm.transaction():
            row = orm.create(account, name="Ann")
        with orm.transaction():
            orm.update(row, name="Ann")
        assert marked.events() == {}

    @_needs("inheritance")
    def test_a_row_of_a_subclass_is_marked_once_under_its_own_name(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A row of a model that inherits from another: marked as the subclass alone"""
        account = orm.model("Account")
        admin = orm.model("Admin", parent=account)
        with orm.transaction():
            row = orm.create(admin)
        assert marked.events() == {"admin:created": {_id(orm, row)}}

    # Transactions

    @_needs("transactions")
    def test_an_open_transaction_has_marked_nothing_yet(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """Marks wait for the COMMIT"""
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
            assert marked.events() == {}
        assert marked.events() == {"account:created": {_id(orm, row)}}

    @_needs("transactions")
    def test_a_rolled_back_transaction_marks_nothing(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A transaction is rolled back: nothing is marked"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with abandoned(orm.transaction()):
            orm.create(account, premium=True)
        assert orm.count(account) == 0
        assert (marked.events(), marked.flags()) == ({}, {})

    @_needs("transactions")
    def test_after_an_exception_the_next_transaction_marks_its_own_rows_alone(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """An exception in the middle of a transaction leaves nothing to the next one"""
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
        kept = _id(orm, row)
        with abandoned(orm.transaction()):
            orm.delete(row)
            orm.create(account, name="lost")
        with orm.transaction():
            after = orm.create(account, name="after")
        assert marked.events() == {"account:created": {kept, _id(orm, after)}}

    @_needs("transactions")
    def test_one_commit_is_one_batch(self, orm: ContractOrm, recorded: RecordedMarks) -> None:
        """A commit sends one batch, in the order of the changes"""
        account = orm.model("Account")
        with orm.transaction():
            first, second = orm.create(account), orm.create(account)
        with orm.transaction():
            orm.update(second, name="Ann")
            third = orm.create(account)
        one, two, three = (_id(orm, row) for row in (first, second, third))
        batches: list[tuple[object, ...]] = [*recorded.batches]
        assert batches == [
            (("account:created", one), ("account:created", two)),
            (("account:updated", two), ("account:created", three)),
        ]

    @_needs("transactions")
    def test_a_row_created_and_updated_in_one_transaction_is_only_created(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A row is created and updated in one transaction: created"""
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
            orm.update(row, name="Ann")
        assert marked.events() == {"account:created": {_id(orm, row)}}

    @_needs("transactions")
    def test_a_row_updated_and_deleted_in_one_transaction_is_only_deleted(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A row is updated and deleted in one transaction: deleted"""
        account = orm.model("Account", __bitmapist_events__=("updated", "deleted"))
        with orm.transaction():
            row = orm.create(account)
        id_ = _id(orm, row)
        with orm.transaction():
            orm.update(row, name="Ann")
            orm.delete(row)
        assert marked.events() == {"account:deleted": {id_}}

    @_needs("transactions")
    def test_a_row_that_came_and_went_in_one_transaction_marks_nothing(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A row is created and deleted in one transaction: nothing is marked"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            orm.delete(orm.create(account, premium=True))
        assert (marked.events(), marked.flags()) == ({}, {})

    @_needs("failing writes")
    def test_a_failing_write_marks_nothing(self, orm: ContractOrm, marked: Marked) -> None:
        """A write that the database refuses: nothing is marked"""
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
        # Each ORM has its own kinds of errors. Without any error, the second row would be marked.
        with suppress(Exception), orm.transaction():
            orm.create(account, id=orm.key(row), name="twin")
        assert orm.count(account) == 1
        assert marked.events() == {"account:created": {_id(orm, row)}}

    # Savepoints

    @_needs("savepoints")
    def test_a_released_savepoint_marks_when_the_transaction_commits(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A savepoint is released: marked with the transaction"""
        account = orm.model("Account")
        with orm.transaction():
            outer = orm.create(account)
            with orm.savepoint():
                inner = orm.create(account)
            assert marked.events() == {}
        assert marked.events() == {"account:created": {_id(orm, outer), _id(orm, inner)}}

    @_needs("savepoints")
    def test_a_rolled_back_savepoint_marks_nothing(self, orm: ContractOrm, marked: Marked) -> None:
        """A savepoint is rolled back: nothing of it is marked"""
        account = orm.model("Account")
        with orm.transaction():
            before = orm.create(account)
            with abandoned(orm.savepoint()):
                orm.create(account)
            after = orm.create(account)
        assert orm.count(account) == 2
        assert marked.events() == {"account:created": {_id(orm, before), _id(orm, after)}}

    @_needs("savepoints")
    def test_a_released_savepoint_of_a_rolled_back_transaction_marks_nothing(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A savepoint is released, then its transaction rolled back: nothing is marked"""
        account = orm.model("Account")
        with abandoned(orm.transaction()):
            orm.create(account)
            with orm.savepoint():
                orm.create(account)
        assert orm.count(account) == 0
        assert marked.events() == {}

    @_needs("savepoints")
    def test_a_savepoint_released_into_a_rolled_back_one_marks_nothing(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A savepoint is released into one that is rolled back: nothing of either is marked"""
        account = orm.model("Account")
        with orm.transaction():
            with abandoned(orm.savepoint()):
                orm.create(account)
                with orm.savepoint():
                    orm.create(account)
            with orm.savepoint():
                row = orm.create(account)
        assert marked.events() == {"account:created": {_id(orm, row)}}

    @_needs("savepoints")
    def test_a_rolled_back_savepoint_takes_back_what_it_did_to_an_earlier_row(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A savepoint that changed an earlier row is rolled back: its marks stay as they were"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            row = orm.create(account, premium=True)
        id_ = _id(orm, row)
        with orm.transaction(), abandoned(orm.savepoint()):
            orm.update(row, premium=False)
        assert marked.events() == {"account:created": {id_}}
        assert marked.flags() == {"account:premium": {id_}}

    @_needs("savepoints", "failing writes")
    def test_a_failing_write_in_a_savepoint_leaves_the_marks_around_it(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A write fails in a savepoint, and the transaction goes on: the rest is marked"""
        account = orm.model("Account")
        with orm.transaction():
            known = orm.create(account)
        with orm.transaction():
            with suppress(Exception), orm.savepoint():
                orm.create(account, id=orm.key(known), name="twin")
            row = orm.create(account)
        assert marked.events() == {"account:created": {_id(orm, known), _id(orm, row)}}

    # Options

    def test_a_model_can_have_a_name_of_its_own(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_name__`: the name in events"""
        account = orm.model("Account", __bitmapist_name__="member")
        with orm.transaction():
            row = orm.create(account)
        assert marked.events() == {"member:created": {_id(orm, row)}}

    def test_an_attribute_can_be_the_id(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_id__ = "author"`: an attribute is marked, also when the row is deleted"""
        post = orm.model("Post", __bitmapist_id__="author")
        with orm.transaction():
            row = orm.create(post, author=42)
        with orm.transaction():
            orm.delete(row)
        assert marked.events() == {"post:created": {42}, "post:deleted": {42}}

    def test_a_method_can_give_the_id(self, orm: ContractOrm, marked: Marked) -> None:
        """`def __bitmapist_id__(self)`: what a method returns is marked"""
        post = orm.model("Post", __bitmapist_id__=lambda row: row.author + 100)
        with orm.transaction():
            orm.create(post, author=42)
        assert marked.events() == {"post:created": {142}}

    def test_none_as_id_marks_nobody(self, orm: ContractOrm, marked: Marked) -> None:
        """An id of None: nobody is marked"""
        post = orm.model("Post", __bitmapist_id__="author", __bitmapist_flags__=("premium",))
        with orm.transaction():
            orm.create(post, premium=True)
        assert orm.count(post) == 1
        assert (marked.events(), marked.flags()) == ({}, {})

    def test_a_subset_of_events_can_be_chosen(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_events__`: the other events are not marked"""
        account = orm.model("Account", __bitmapist_events__=("created",))
        with orm.transaction():
            row = orm.create(account)
        id_ = _id(orm, row)
        with orm.transaction():
            orm.update(row, name="Ann")
        with orm.transaction():
            orm.delete(row)
        assert marked.events() == {"account:created": {id_}}

    def test_the_ids_of_a_model_can_be_kept_apart(
        self, orm: ContractOrm, recorded: RecordedMarks
    ) -> None:
        """`__bitmapist_ids__`: mapped ids have a map of their own"""
        post = orm.model("Post", __bitmapist_ids__="posts", __bitmapist_id__=lambda row: "p-1")
        with orm.transaction():
            orm.create(post)
        assert [(mark.event, mark.space) for mark in recorded] == [("post:created", "posts")]

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("__bitmapist_name__", "two\nlines"),
            ("__bitmapist_id__", 7),
            ("__bitmapist_id__", "no_such_attribute"),
            ("__bitmapist_events__", "created"),
            ("__bitmapist_events__", ("made",)),
            ("__bitmapist_flags__", "premium"),
            ("__bitmapist_flags__", ("no_such_attribute",)),
            ("__bitmapist_dimensions__", "name"),
            ("__bitmapist_dimensions__", ("no_such_attribute",)),
            ("__bitmapist_dimensions__", (Dimension("no_such_attribute", dated=True),)),
            ("__bitmapist_dimensions__", Dimension("name")),
            ("__bitmapist_dimensions__", ("name", Dimension("name", dated=True))),
            ("__bitmapist_dimensions__", (Dimension("name", dated=1),)),  # type: ignore[arg-type]
            ("__bitmapist_ids__", None),
            ("__bitmapist_bulk__", "yes"),
            ("__bitmapist_erase_deleted__", 1),
            ("__bitmapist_keep__", "post:read"),
        ],
    )
    def test_a_wrong_option_is_an_error_at_declaration(
        self, orm: ContractOrm, option: str, value: Any
    ) -> None:
        """A wrong option is a TypeError when the model is declared"""
        with pytest.raises(TypeError):
            orm.model("Account", **{option: value})

    # Flags

    def test_a_flag_follows_its_attribute(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_flags__`: set while the attribute is true"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            free, paying = orm.create(account), orm.create(account, premium=True)
        assert marked.flags() == {"account:premium": {_id(orm, paying)}}
        with orm.transaction():
            orm.update(free, premium=True)
        with orm.transaction():
            orm.update(paying, premium=False)
        assert marked.flags() == {"account:premium": {_id(orm, free)}}

    def test_an_update_of_something_else_leaves_the_flag(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A flag stays when another attribute changes"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            row = orm.create(account, premium=True)
        with orm.transaction():
            orm.update(row, name="Ann")
        assert marked.flags() == {"account:premium": {_id(orm, row)}}

    def test_the_last_value_of_a_flag_wins(self, orm: ContractOrm, marked: Marked) -> None:
        """A flag that is true, false and true in one transaction is set"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            back, off = orm.create(account), orm.create(account)
        with orm.transaction():
            for row, values in ((back, (True, False, True)), (off, (True, True, False))):
                for value in values:
                    orm.update(row, premium=value)
        assert marked.flags() == {"account:premium": {_id(orm, back)}}

    def test_a_deletion_clears_the_flag(self, orm: ContractOrm, marked: Marked) -> None:
        """A deletion clears the flags of the row"""
        account = orm.model("Account", __bitmapist_flags__=("premium",))
        with orm.transaction():
            row = orm.create(account, premium=True)
        with orm.transaction():
            orm.delete(row)
        assert marked.flags() == {}

    # Dimensions

    def test_a_dimension_has_one_value_at_a_time(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_dimensions__`: each value is a flag of those who have it, and no other"""
        account = orm.model("Account", __bitmapist_dimensions__=("name", "premium"))
        with orm.transaction():
            one, two = orm.create(account, name="free"), orm.create(account, name="pro")
        with orm.transaction():
            orm.update(one, name="pro")
        with orm.transaction():
            orm.update(two, name="gold", premium=True)
        assert marked.flags() == {
            "account:name=pro": {_id(orm, one)},
            "account:name=gold": {_id(orm, two)},
            "account:premium=false": {_id(orm, one)},
            "account:premium=true": {_id(orm, two)},
        }

    def test_months_are_kept_of_a_dated_dimension(self, orm: ContractOrm) -> None:
        """`Dimension("plan", dated=True)`: each change and the deletion are marks of the month"""
        dimensions = (Dimension("name", dated=True), Dimension("premium"))
        account = orm.model("Account", __bitmapist_dimensions__=dimensions, __bitmapist_events__=())
        with record_marks() as marks:
            with orm.transaction():
                row = orm.create(account, name="free")
            id_ = _id(orm, row)
            with orm.transaction():
                orm.update(row, name="pro")
            with orm.transaction():
                orm.delete(row)
        names = [mark for mark in marks if mark.event == "account:name"]
        assert names == [Mark("account:name", id_, choice=name) for name in ("free", "pro", "")]
        others = [mark for mark in marks if mark.event == "account:premium"]
        assert {mark.dated for mark in others} == {False}

    def test_an_update_of_something_else_leaves_the_dimension(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A dimension keeps its value when another attribute changes"""
        account = orm.model("Account", __bitmapist_dimensions__=("name",))
        with orm.transaction():
            row = orm.create(account, name="pro")
        with orm.transaction():
            orm.update(row, premium=True)
        assert marked.flags() == {"account:name=pro": {_id(orm, row)}}

    def test_the_last_value_of_a_dimension_wins(self, orm: ContractOrm, marked: Marked) -> None:
        """A dimension that has several values in one transaction has the last one"""
        account = orm.model("Account", __bitmapist_dimensions__=("name",))
        with orm.transaction():
            back, new = orm.create(account, name="free"), orm.create(account, name="pro")
        with orm.transaction():
            for name in ("pro", "gold", "free"):
                orm.update(back, name=name)
            for name in ("gold", "silver"):
                orm.update(new, name=name)
        assert marked.flags() == {
            "account:name=free": {_id(orm, back)},
            "account:name=silver": {_id(orm, new)},
        }

    def test_no_value_and_a_deletion_clear_the_dimension(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """None clears a dimension, and so does a deletion"""
        account = orm.model("Account", __bitmapist_dimensions__=("name",))
        with orm.transaction():
            one, two, three = (orm.create(account, name=name) for name in ("a", "a", "b"))
        with orm.transaction():
            orm.update(one, name=None)
        with orm.transaction():
            orm.delete(three)
        assert marked.flags() == {"account:name=a": {_id(orm, two)}}

    @_needs("transactions")
    def test_a_rolled_back_transaction_leaves_the_dimension(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A transaction is rolled back: dimensions keep their values"""
        account = orm.model("Account", __bitmapist_dimensions__=("name",))
        with orm.transaction():
            row = orm.create(account, name="free")
        id_ = _id(orm, row)
        with abandoned(orm.transaction()):
            orm.update(row, name="pro")
        assert marked.flags() == {"account:name=free": {id_}}

    # People who are erased

    def test_whoever_is_deleted_is_to_be_erased(
        self, orm: ContractOrm, recorded: RecordedMarks
    ) -> None:
        """`__bitmapist_erase_deleted__`: whose row is deleted is erased, once that is marked"""
        account = orm.model("Account", __bitmapist_erase_deleted__=True)
        with orm.transaction():
            one, two = orm.create(account), orm.create(account)
        ids = [_id(orm, row) for row in (one, two)]
        with orm.transaction():
            orm.update(two, name="Ann")
        with orm.transaction():
            orm.delete(one)
        assert recorded.of("account:deleted") == {ids[0]}
        assert recorded.to_erase == ids[:1]

    @_needs("transactions")
    def test_whoever_came_and_went_is_not_to_be_erased(
        self, orm: ContractOrm, recorded: RecordedMarks
    ) -> None:
        """... a row created and deleted in one transaction, or a deletion rolled back: not"""
        account = orm.model("Account", __bitmapist_erase_deleted__=True)
        with orm.transaction():
            kept = orm.create(account)
            orm.delete(orm.create(account))
        with abandoned(orm.transaction()):
            orm.delete(kept)
        assert recorded.to_erase == []

    @_needs("savepoints")
    def test_a_deletion_that_is_rolled_back_to_a_savepoint_erases_nobody(
        self, orm: ContractOrm, recorded: RecordedMarks
    ) -> None:
        """... a savepoint with the deletion is released: erased; rolled back: not"""
        account = orm.model("Account", __bitmapist_erase_deleted__=True)
        with orm.transaction():
            one, two = orm.create(account), orm.create(account)
        id_ = _id(orm, one)
        with orm.transaction():
            with orm.savepoint():
                orm.delete(one)
            with abandoned(orm.savepoint()):
                orm.delete(two)
            assert recorded.to_erase == []
        assert recorded.to_erase == [id_]

    @_needs("bulk delete")
    def test_those_deleted_in_bulk_are_to_be_erased(
        self, orm: ContractOrm, recorded: RecordedMarks
    ) -> None:
        """... rows deleted by one statement, with `__bitmapist_bulk__`"""
        account = orm.model("Account", __bitmapist_bulk__=True, __bitmapist_erase_deleted__=True)
        with orm.transaction():
            rows = [orm.create(account, name=name) for name in ("a", "a", "b")]
        ids = [_id(orm, row) for row in rows]
        with orm.transaction():
            orm.bulk_delete(account, {"name": "a"})
        assert sorted(recorded.to_erase) == ids[:2]

    @pytest.mark.parametrize("option", ["__bitmapist_id__", "__bitmapist_ids__"])
    def test_only_the_model_of_the_people_may_erase(self, orm: ContractOrm, option: str) -> None:
        """... on a model whose rows are not the people is a TypeError"""
        options: dict[str, Any] = {option: "author", "__bitmapist_erase_deleted__": True}
        with pytest.raises(TypeError, match=f"Post has {option}, so its rows are not the people"):
            orm.model("Post", **options)

    # Keys

    @_needs("textual keys")
    def test_a_textual_key_stays_text(self, orm: ContractOrm, marked: Marked) -> None:
        """A textual key is mapped, whatever its values look like"""
        account = orm.model("Account", key=str)
        with orm.transaction():
            orm.create(account, id="7")
            orm.create(account, id="ann")
        assert marked.events() == {"account:created": {"7", "ann"}}

    @_needs("uuid keys")
    def test_a_uuid_key_is_mapped_by_its_text(self, orm: ContractOrm, marked: Marked) -> None:
        """A UUID key is mapped"""
        account = orm.model("Account", key=UUID)
        key = uuid4()
        with orm.transaction():
            orm.create(account, id=key)
        assert marked.events() == {"account:created": {str(key)}}

    @_needs("composite keys")
    def test_a_composite_key_is_mapped_as_one(self, orm: ContractOrm, marked: Marked) -> None:
        """A composite key is mapped as one id"""
        membership = orm.model("Membership", key=tuple)
        with orm.transaction():
            row = orm.create(membership, team="red", number=7)
        with orm.transaction():
            orm.delete(row)
        assert marked.events() == {
            "membership:created": {"red:7"},
            "membership:deleted": {"red:7"},
        }

    # Bulk statements

    @_needs("bulk insert")
    def test_rows_inserted_in_bulk_are_marked(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_bulk__`: rows inserted by one statement"""
        account = orm.model(
            "Account",
            __bitmapist_bulk__=True,
            __bitmapist_id__="author",
            __bitmapist_flags__=("premium",),
            __bitmapist_dimensions__=("name",),
        )
        with orm.transaction():
            rows: list[dict[str, Any]] = [
                {"author": 1, "premium": True, "name": "pro"},
                {"author": 2, "premium": False, "name": None},
            ]
            orm.bulk_insert(account, rows)
        assert marked.events() == {"account:created": {1, 2}}
        assert marked.flags() == {"account:premium": {1}, "account:name=pro": {1}}

    @_needs("bulk update")
    def test_rows_updated_in_bulk_are_marked(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_bulk__`: rows updated by one statement"""
        account = self._bulk_model(orm, "updated")
        with orm.transaction():
            one, two, _ = (orm.create(account, name=name) for name in ("a", "a", "b"))
        with orm.transaction():
            orm.bulk_update(account, {"name": "a"}, {"premium": True})
        ids = {_id(orm, one), _id(orm, two)}
        assert marked.events() == {"account:updated": ids}
        assert marked.flags() == {"account:premium": ids}

    @_needs("bulk delete")
    def test_rows_deleted_in_bulk_are_marked(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_bulk__`: rows deleted by one statement"""
        account = self._bulk_model(orm, "deleted")
        with orm.transaction():
            rows = [orm.create(account, name=name, premium=True) for name in ("a", "a", "b")]
        one, two, kept = (_id(orm, row) for row in rows)
        with orm.transaction():
            orm.bulk_delete(account, {"name": "a"})
        assert marked.events() == {"account:deleted": {one, two}}
        assert marked.flags() == {"account:premium": {kept}}

    @_needs("bulk update", "transactions")
    def test_rows_updated_in_bulk_and_rolled_back_are_not_marked(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """A bulk statement is rolled back: nothing is marked"""
        account = self._bulk_model(orm, "updated")
        with orm.transaction():
            orm.create(account, name="a")
        with abandoned(orm.transaction()):
            orm.bulk_update(account, {"name": "a"}, {"premium": True})
        assert (marked.events(), marked.flags()) == ({}, {})

    @_needs("bulk update", "bulk delete")
    def test_dimensions_follow_bulk_statements(self, orm: ContractOrm, marked: Marked) -> None:
        """`__bitmapist_bulk__`: dimensions of rows updated and deleted by one statement"""
        account = orm.model(
            "Account", __bitmapist_bulk__=True, __bitmapist_dimensions__=("name", "premium")
        )
        with orm.transaction():
            one, two, _ = (orm.create(account, name=name) for name in ("free", "free", "pro"))
        ids = {_id(orm, one), _id(orm, two)}
        with orm.transaction():
            orm.bulk_update(account, {"name": "free"}, {"name": "gold"})
        with orm.transaction():
            orm.bulk_delete(account, {"name": "pro"})
        assert marked.flags() == {"account:name=gold": ids, "account:premium=false": ids}

    @staticmethod
    def _bulk_model(orm: ContractOrm, *events: str) -> Any:
        return orm.model(
            "Account",
            __bitmapist_bulk__=True,
            __bitmapist_events__=events,
            __bitmapist_flags__=("premium",),
        )

    # Marks of the caller's own

    @_needs("transactions")
    def test_own_marks_wait_for_the_commit(self, orm: ContractOrm, marked: Marked) -> None:
        """`record(...)` in a transaction: marked when it commits"""
        with orm.transaction():
            orm.record(("post:read", 7), ("post:liked", 8))
            assert marked.events() == {}
        assert marked.events() == {"post:read": {7}, "post:liked": {8}}

    @_needs("transactions")
    def test_own_marks_of_a_rolled_back_transaction_are_dropped(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """`record(...)` in a transaction that is rolled back: nothing is marked"""
        with abandoned(orm.transaction()):
            orm.record(("post:read", 7))
        assert marked.events() == {}

    @_needs("savepoints")
    def test_own_marks_of_a_released_savepoint_wait_for_the_commit(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """`record(...)` in a savepoint that is released: marked with the transaction"""
        with orm.transaction():
            with orm.savepoint():
                orm.record(("post:read", 7))
            assert marked.events() == {}
        assert marked.events() == {"post:read": {7}}

    @_needs("savepoints")
    def test_own_marks_of_a_rolled_back_savepoint_are_dropped(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """`record(...)` in a savepoint that is rolled back: nothing is marked"""
        with orm.transaction():
            orm.record(("post:read", 7))
            with abandoned(orm.savepoint()):
                orm.record(("post:read", 8))
        assert marked.events() == {"post:read": {7}}

    def test_own_marks_outside_a_transaction_are_published_at_once(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """`record(...)` outside a transaction: marked at once"""
        orm.record(("post:read", 7))
        assert marked.events() == {"post:read": {7}}

    @pytest.mark.parametrize("mark", [("post:read", -1), ("", 7), ("post:read", None)])
    def test_a_wrong_own_mark_is_an_error_at_the_call(
        self, orm: ContractOrm, marked: Marked, mark: tuple[Any, ...]
    ) -> None:
        """`record(...)` of something that is not a mark raises at the call"""
        with orm.transaction(), pytest.raises((TypeError, ValueError)):
            orm.record(mark)
        assert marked.events() == {}

    # Surroundings

    def test_marks_are_dated_as_the_tracker_says(
        self, orm: ContractOrm, marked: Marked, tracker: Tracker
    ) -> None:
        """`with tracker.at(when):` dates the marks of rows"""
        account = orm.model("Account")
        with tracker.at(datetime(2020, 2, 29, 12)), orm.transaction():
            row = orm.create(account)
        assert marked.events(on=date(2020, 2, 29)) == {"account:created": {_id(orm, row)}}

    @_needs("transactions")
    def test_the_moment_of_a_mark_is_that_of_the_commit(
        self, orm: ContractOrm, marked: Marked, tracker: Tracker
    ) -> None:
        """The moment of a mark is that of the commit"""
        account = orm.model("Account")
        with tracker.at(date(2020, 3, 1)), orm.transaction(), tracker.at(date(2020, 2, 29)):
            row = orm.create(account)
        assert marked.events() == marked.events(on=date(2020, 3, 1))
        assert marked.events() == {"account:created": {_id(orm, row)}}

    @_needs("threads", "transactions")
    def test_a_commit_of_another_thread_leaves_the_own_transaction_alone(
        self, orm: ContractOrm, marked: Marked
    ) -> None:
        """Threads have transactions, and marks, of their own"""
        account = orm.model("Account")

        def create() -> int | str:
            with orm.transaction():
                return _id(orm, orm.create(account))

        with ThreadPoolExecutor(1) as thread, abandoned(orm.transaction()):
            orm.record(("post:read", 7))
            created = thread.submit(create).result()
            assert marked.events() == {"account:created": {created}}
        assert marked.events() == {"account:created": {created}}

    @_needs("threads")
    def test_many_threads_mark_all_that_they_commit(self, orm: ContractOrm, marked: Marked) -> None:
        """Many threads write at once: all rows are marked"""
        account = orm.model("Account")

        def create(_: int) -> int | str:
            with orm.transaction():
                return _id(orm, orm.create(account))

        with ThreadPoolExecutor(4) as threads:
            created = set(threads.map(create, range(12)))
        assert len(created) == 12
        assert marked.events() == {"account:created": created}

    def test_redis_being_down_does_not_hurt_the_commit(
        self, orm: ContractOrm, app: Flask, tmp_path: Path
    ) -> None:
        """Redis is down during the commit: the rows stay, the marks wait in the spool"""
        spool = tmp_path / "spool"
        server = f"unix://{tmp_path}/stopped.sock"
        extension = FlaskBitmapist(
            app, {"BITMAPIST_REDIS_URL": server, "BITMAPIST_SPOOL": str(spool)}
        )
        account = orm.model("Account")
        with orm.transaction():
            row = orm.create(account)
        assert orm.count(account) == 1
        waiting = RecordedMarks()
        stopped = server_of(extension.tracker_of(app).redis)
        Spool(spool, stopped).drain(waiting.take, trips=10)
        assert waiting == [("account:created", _id(orm, row))]

    def test_rows_are_marked_inside_an_app_context(
        self, orm: ContractOrm, marked: Marked, app: Flask
    ) -> None:
        """Inside an application context; all other tests run outside one"""
        account = orm.model("Account")
        with app.app_context(), orm.transaction():
            row = orm.create(account)
        assert marked.events() == {"account:created": {_id(orm, row)}}

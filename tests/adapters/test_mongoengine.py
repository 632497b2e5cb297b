"""What MongoEngine's documents mark: on a server over a real socket, and partly on mongomock.

The contract of adapters is tested elsewhere.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from itertools import count
from typing import Any, ClassVar

import mongoengine
import pytest
from bson import DBRef, ObjectId
from mongoengine import (
    CASCADE,
    DENY,
    NULLIFY,
    PULL,
    BooleanField,
    DictField,
    Document,
    DynamicDocument,
    DynamicEmbeddedDocument,
    DynamicField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    GenericReferenceField,
    IntField,
    LazyReferenceField,
    ListField,
    ReferenceField,
    SequenceField,
    StringField,
    ValidationError,
    queryset_manager,
    signals,
)
from mongoengine.errors import BulkWriteError, NotUniqueError, OperationError, SaveConditionError
from mongoengine.queryset import QuerySet
from pymongo.database import Database
from pymongo.errors import OperationFailure

from flask_bitmapist.adapters.base import ACTIONS
from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable
from flask_bitmapist.login import user_id
from flask_bitmapist.tracker import Tracker

from .marks import Marks

pytest_plugins = ["adapters.mongodb"]


class Address(EmbeddedDocument):
    town = StringField()


class Member(MongoEngineBitmapistable, Document):
    __bitmapist_flags__ = ("premium",)

    number = SequenceField(primary_key=True)
    name = StringField(unique=True, sparse=True, max_length=20)
    premium = BooleanField(default=False)
    tags = ListField(StringField())
    address = EmbeddedDocumentField(Address)
    friend = ReferenceField("self", reverse_delete_rule=NULLIFY)


class Letter(Document, MongoEngineBitmapistable):
    __bitmapist_id__ = "author"

    author = ReferenceField(Member, reverse_delete_rule=CASCADE)
    text = StringField()


class Bill(Document):
    payer = ReferenceField(Member, reverse_delete_rule=DENY)


class Parcel(MongoEngineBitmapistable, Document):
    number = IntField(primary_key=True)

    def delete(self, *_: Any, **__: Any) -> None:
        raise AssertionError("the documents of a queryset are not deleted one by one")


class Parent(MongoEngineBitmapistable, Document):
    number = IntField(primary_key=True)


class Twin(MongoEngineBitmapistable, Document):
    number = IntField(primary_key=True)
    other = ReferenceField("self", reverse_delete_rule=CASCADE)
    parent = ReferenceField("Parent", reverse_delete_rule=CASCADE)


class Voiding(QuerySet):
    def delete(self, *_: Any, **__: Any) -> Any:
        return self.update(void=True)


class Invoice(MongoEngineBitmapistable, Document):
    __bitmapist_bulk__ = True
    meta: ClassVar = {"queryset_class": Voiding}

    number = IntField(primary_key=True)
    void = BooleanField(default=False)


class Country(MongoEngineBitmapistable, Document):
    code = StringField(primary_key=True)
    name = StringField()


@pytest.fixture
def database(request: pytest.FixtureRequest, marks: Marks) -> Database[Any]:
    where = getattr(request, "param", "server")
    database: Database[Any] = request.getfixturevalue(f"{where}_database")
    return database


#: Where mongomock answers in another way than PyMongo.
on_mongomock_too = pytest.mark.parametrize("database", ["mongomock", "server"], indirect=True)


@pytest.fixture
def ann(database: Database[Any], marks: Marks) -> Member:
    """A member who was there before: loaded, and her marks forgotten."""
    Member(number=7, name="Ann", tags=["a"], address=Address(town="Ulm")).save()
    marks.forget()
    ann: Member = Member.objects.get(name="Ann")
    return ann


@pytest.fixture
def finds(database: Database[Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The collections that were read by `find()` so far, and the limits."""
    found: list[Any] = []
    kind = type(database.anything)
    original = kind.find

    def find(collection: Any, *args: Any, **kwargs: Any) -> Any:
        found.append((collection.name, kwargs.get("limit", 0)))
        return original(collection, *args, **kwargs)

    monkeypatch.setattr(kind, "find", find)
    return found


@contextmanager
def unreadable(database: Database[Any], after: int = 0) -> Iterator[None]:
    """Reading by `find()` fails, from the call number `after` on."""
    kind = type(database.anything)
    original = kind.find
    calls = count()

    def find(collection: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls) >= after:
            raise OperationFailure("no reading")
        return original(collection, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "find", find)
        yield


class TestSave:
    def test_create_marks_too(self, database: Database[Any], marks: Marks) -> None:
        member = Member.objects.create(name="Ann")
        assert marks() == {"member:created": [member.number]}

    def test_an_embedded_change_is_an_update(self, ann: Member, marks: Marks) -> None:
        ann.address.town = "Bonn"
        ann.save()
        assert marks() == {"member:updated": [7]}

    def test_a_change_of_a_list_is_an_update(self, ann: Member, marks: Marks) -> None:
        ann.tags.append("b")
        ann.save()
        assert marks() == {"member:updated": [7]}

    def test_a_removed_value_is_an_update(self, ann: Member, marks: Marks) -> None:
        del ann.tags
        ann.save()
        assert marks() == {"member:updated": [7]}

    def test_changing_a_referenced_document_is_not_an_update(
        self, ann: Member, marks: Marks
    ) -> None:
        ben = Member(number=8, name="Ben", friend=ann).save()
        marks.forget()
        ann.name = "Anna"
        ben.save()
        assert marks() == {}

    def test_a_cascading_save_marks_each_changed_document(self, ann: Member, marks: Marks) -> None:
        ben = Member(number=8, name="Ben", friend=ann).save()
        marks.forget()
        ann.name = "Anna"
        ben.save(cascade=True)
        assert marks() == {"member:updated": [7]}

    def test_a_refused_insert_marks_nothing(self, ann: Member, marks: Marks) -> None:
        with pytest.raises(NotUniqueError):
            Member(name="Ann").save()
        with pytest.raises(NotUniqueError):
            Member(number=7).save(force_insert=True)
        assert marks() == {}

    def test_a_refused_update_marks_nothing(self, ann: Member, marks: Marks) -> None:
        Member(number=8, name="Ben").save()
        marks.forget()
        ann.name = "Ben"
        with pytest.raises(NotUniqueError):
            ann.save()
        assert marks() == {}

    def test_an_update_that_was_refused_is_marked_once_it_succeeds(
        self, ann: Member, marks: Marks
    ) -> None:
        Member(number=8, name="Ben").save()
        marks.forget()
        ann.name = "Ben"
        with pytest.raises(NotUniqueError):
            ann.save()
        ann.name = "Benno"
        ann.save()
        assert marks() == {"member:updated": [7]}

    def test_an_invalid_document_marks_nothing(self, database: Database[Any], marks: Marks) -> None:
        with pytest.raises(ValidationError):
            Member(name="x" * 21).save()
        assert marks() == {}

    def test_an_unmet_save_condition_marks_nothing(self, ann: Member, marks: Marks) -> None:
        ann.premium = True
        with pytest.raises(SaveConditionError):
            ann.save(save_condition={"name": "Ben"})
        assert marks() == {}
        ann.save(save_condition={"name": "Ann"})
        assert marks() == {"member:updated": [7]}

    @on_mongomock_too
    def test_a_document_that_replaces_another_is_an_update(self, ann: Member, marks: Marks) -> None:
        Member(number=7, name="Anna", premium=True).save()
        assert Member.objects.count() == 1
        assert marks() == {"member:updated": [7]}
        assert marks.flags() == {"member:premium": [7]}

    def test_a_document_replaces_no_document_of_another_collection(
        self, ann: Member, marks: Marks
    ) -> None:
        elsewhere = Member(number=7, name="Ann")
        elsewhere.switch_collection("archive")
        elsewhere.save()
        assert marks() == {"member:created": [7]}

    @on_mongomock_too
    def test_a_deleted_document_saved_with_changes_is_created_again(
        self, ann: Member, marks: Marks
    ) -> None:
        Member.objects.get(number=7).delete()
        marks.forget()
        ann.premium = True
        ann.save()
        assert Member.objects.count() == 1
        assert marks() == {"member:created": [7]}
        assert marks.flags() == {"member:premium": [7]}

    def test_flags_of_a_deleted_document_saved_with_changes_are_those_stored(
        self, ann: Member, marks: Marks
    ) -> None:
        ann.premium = True
        ann.save()
        Member.objects.delete()
        marks.forget()
        ann.name = "Anna"
        ann.save()
        assert not Member.objects.get().premium
        assert marks() == {"member:created": [7]}
        assert marks.flags() == {}

    def test_a_deleted_document_of_a_hierarchy_saved_with_changes_is_created_again(
        self, database: Database[Any], marks: Marks
    ) -> None:
        dog = Dog(number=2).save()
        Dog.objects.delete()
        marks.forget()
        dog.name = "Rex"
        dog.save()  # without its class, so that no queryset finds it
        assert database.animal.count_documents({}) == 1
        assert marks() == {"dog:created": [2]}

    def test_the_chosen_id_of_a_deleted_document_saved_with_changes_is_the_stored_one(
        self, ann: Member, marks: Marks
    ) -> None:
        letter = Letter(author=ann).save()
        Letter.objects.delete()
        marks.forget()
        letter.text = "hello"
        letter.save()
        assert Letter.objects.get().author is None
        assert marks() == {}

    def test_a_deleted_document_saved_without_changes_marks_nothing(
        self, ann: Member, marks: Marks
    ) -> None:
        ann.delete()
        marks.forget()
        ann.save()
        assert Member.objects.count() == 0
        assert marks() == {}

    def test_an_unacknowledged_write_is_marked_too(
        self, database: Database[Any], marks: Marks
    ) -> None:
        member = Member(name="Ann").save(write_concern={"w": 0})
        assert marks() == {"member:created": [member.number]}

    def test_a_saved_document_keeps_nothing_of_ours(self, ann: Member) -> None:
        for write in (ann.save, ann.delete):
            write()
            assert not [name for name in vars(ann) if "bitmapist" in name]


class TestDelete:
    def test_deleting_twice_marks_once(self, ann: Member, marks: Marks, tracker: Tracker) -> None:
        ann.delete()
        marks.forget()
        ann.delete()
        assert marks() == {}

    def test_deleting_what_another_process_has_deleted_marks_nothing(
        self, ann: Member, database: Database[Any], marks: Marks
    ) -> None:
        database.member.delete_many({})
        ann.delete()
        assert marks() == {}

    def test_a_document_can_be_deleted_by_only_its_key(self, ann: Member, marks: Marks) -> None:
        Member(number=7).delete()
        Member(number=8).delete()
        Letter().delete()
        assert marks() == {"member:deleted": [7]}

    def test_a_limited_queryset_delete_marks_what_it_deleted(
        self, ann: Member, marks: Marks
    ) -> None:
        Member(number=8, name="Ben").save()
        marks.forget()
        Member.objects.order_by("-number").limit(1).delete()
        assert marks() == {"member:deleted": [8]}
        Member(number=9, name="Cleo").save()
        marks.forget()
        Member.objects.order_by("number").skip(1).delete()
        assert marks() == {"member:deleted": [9]}

    def test_a_cascade_marks_what_it_deleted(self, ann: Member, marks: Marks) -> None:
        Letter(author=ann, text="hello").save()
        marks.forget()
        ann.delete()
        assert Letter.objects.count() == 0
        assert marks() == {"member:deleted": [7], "letter:deleted": [7]}

    def test_a_denied_delete_marks_nothing(self, ann: Member, marks: Marks) -> None:
        Bill(payer=ann).save()
        with pytest.raises(OperationError):
            ann.delete()
        assert marks() == {}

    def test_a_queryset_is_deleted_in_one_statement(
        self, database: Database[Any], finds: list[Any], marks: Marks
    ) -> None:
        # As MongoEngine deletes it, if nobody listens to signals of deletions.
        Parcel.objects.insert([Parcel(number=1), Parcel(number=2)])
        finds.clear()
        assert Parcel.objects.delete() == 2
        assert finds == [("parcel", 0)]
        assert marks() == {"parcel:created": [1, 2], "parcel:deleted": [1, 2]}

    def test_a_document_is_deleted_without_reading_it(
        self, database: Database[Any], finds: list[Any], marks: Marks
    ) -> None:
        numbered = Numbered(id=1).save()
        finds.clear()
        numbered.delete()
        assert finds == []
        assert marks() == {"numbered:created": [1], "numbered:deleted": [1]}

    def test_a_queryset_that_deletes_one_by_one_is_seen(
        self, database: Database[Any], finds: list[Any], marks: Marks
    ) -> None:
        Numbered.objects.insert([Numbered(id=1), Numbered(id=2)])
        finds.clear()
        deleted = []
        listener = lambda _, document: deleted.append(document.id)  # noqa: E731
        with signals.pre_delete.connected_to(listener, sender=Numbered):
            assert Numbered.objects.delete() == 2
        assert deleted == [1, 2]
        assert finds == [("numbered", 0)]  # by MongoEngine
        assert marks() == {"numbered:created": [1, 2], "numbered:deleted": [1, 2]}

    def test_documents_that_refer_to_each_other_cascade(
        self, database: Database[Any], marks: Marks
    ) -> None:
        parent = Parent(number=9).save()
        first = Twin(number=1, parent=parent).save()
        first.other = Twin(number=2, other=first).save()
        first.save()
        marks.forget()
        parent.delete()
        assert Twin.objects.count() == 0
        assert marks() == {"parent:deleted": [9], "twin:deleted": [1, 2]}

    def test_a_queryset_without_a_cache_is_seen(self, ann: Member, marks: Marks) -> None:
        assert Member.objects.no_cache().delete() == 1
        assert marks() == {"member:deleted": [7]}

    def test_what_a_queryset_class_makes_of_a_deletion_is_marked(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Invoice(number=1).save()
        marks.forget()
        assert Invoice.objects.delete() == 1
        assert Invoice.objects.get().void
        assert marks() == {"invoice:updated": [1]}

    def test_an_unacknowledged_deletion_is_marked(self, ann: Member, marks: Marks) -> None:
        assert Member.objects.delete(write_concern={"w": 0}) is None
        assert marks() == {"member:deleted": [7]}


class TestInsert:
    @pytest.mark.parametrize("load_bulk", [True, False])
    def test_an_inserted_list_is_one_batch(
        self,
        ann: Member,
        marks: Marks,
        bit_commands: Callable[[], int],
        load_bulk: bool,
    ) -> None:
        Member(number=10, name="known").save()  # the event is known from now on
        before = bit_commands()
        Member.objects.insert(
            [Member(number=number, name=f"{number}") for number in range(20, 60)],
            load_bulk=load_bulk,
        )
        assert marks() == {"member:created": [10, *range(20, 60)]}
        assert bit_commands() - before == 4  # day, week, month and the flag

    @pytest.mark.parametrize("load_bulk", [True, False])
    def test_generated_keys_are_marked(
        self, database: Database[Any], marks: Marks, load_bulk: bool
    ) -> None:
        Country.objects.insert([Country(code="de"), Country(code="7")], load_bulk=load_bulk)
        assert marks() == {"country:created": [0, 1]}
        assert (marks.offset("de"), marks.offset("7")) == (0, 1)

    def test_one_inserted_document_is_marked(self, database: Database[Any], marks: Marks) -> None:
        Member.objects.insert(Member(number=3, premium=True))
        assert marks() == {"member:created": [3]}
        assert marks.flags() == {"member:premium": [3]}

    def test_a_refused_insert_marks_nothing(self, ann: Member, marks: Marks) -> None:
        with pytest.raises(NotUniqueError):
            Member.objects.insert(Member(number=8, name="Ann"))
        assert marks() == {}

    @pytest.mark.parametrize("options", ["as_pymongo", "no_cache", "scalar"])
    def test_it_does_not_matter_what_the_queryset_returns(
        self, database: Database[Any], marks: Marks, options: str
    ) -> None:
        queryset = getattr(Member.objects, options)(*["name"][: options == "scalar"])
        queryset.insert([Member(number=3, premium=True), Member(number=4)])
        assert marks() == {"member:created": [3, 4]}
        assert marks.flags() == {"member:premium": [3]}

    @on_mongomock_too
    @pytest.mark.parametrize("ordered", [True, False])
    def test_what_a_partly_refused_insert_has_stored_is_marked(
        self, ann: Member, database: Database[Any], marks: Marks, monkeypatch: Any, ordered: bool
    ) -> None:
        kind = type(database.member)
        insert_many = partialmethod(kind.insert_many, ordered=ordered)
        monkeypatch.setattr(kind, "insert_many", insert_many)
        names = ["Ben", "Ann", "Cleo", "Ann", "Dora"]
        members = [
            Member(number=number, name=name, premium=True) for number, name in enumerate(names, 10)
        ]
        with pytest.raises(BulkWriteError):
            Member.objects.insert(members)
        stored = [10] if ordered else [10, 12, 14]
        assert sorted(member.number for member in Member.objects) == [7, *stored]
        assert marks() == {"member:created": stored}
        assert marks.flags() == {"member:premium": stored}

    @on_mongomock_too
    def test_generated_keys_of_a_partly_refused_insert_are_marked(
        self, database: Database[Any], marks: Marks
    ) -> None:
        taken = Plain().save()
        marks.forget()
        plain = [Plain(), Plain(), Plain(id=taken.id), Plain()]
        with pytest.raises(BulkWriteError):
            Plain.objects.insert(plain)
        assert [each.id for each in plain] == [None, None, taken.id, None]
        stored = Plain.objects(id__ne=taken.id).scalar("id")
        assert len(stored) == 2
        assert marks() == {"plain:created": sorted(marks.offset(str(id_)) for id_ in stored)}


class Plain(MongoEngineBitmapistable, Document):
    pass


class Profile(MongoEngineBitmapistable, Document):
    owner = ReferenceField(Member, primary_key=True)
    text = StringField()


class Numbered(MongoEngineBitmapistable, Document):
    id = IntField(primary_key=True)


class Anything(MongoEngineBitmapistable, Document):
    key = DynamicField(primary_key=True)


class Ticket(MongoEngineBitmapistable, Document):
    serial = SequenceField(primary_key=True, value_decorator=str)


class TestKeys:
    def test_an_object_id_is_mapped_by_its_text(
        self, database: Database[Any], marks: Marks
    ) -> None:
        plain = Plain().save()
        assert isinstance(plain.id, ObjectId)
        assert marks() == {"plain:created": [marks.offset(str(plain.id))]}

    def test_a_new_document_has_no_key_of_another(
        self, database: Database[Any], marks: Marks
    ) -> None:
        database.plain.insert_one({"_id": None})
        plain = Plain().save()
        assert marks() == {"plain:created": [marks.offset(str(plain.id))]}

    def test_an_int_is_its_own_offset(self, database: Database[Any], marks: Marks) -> None:
        Numbered(id=0).save()
        Numbered(id="42").save()
        assert marks() == {"numbered:created": [0, 42]}

    def test_a_textual_sequence_is_mapped(self, database: Database[Any], marks: Marks) -> None:
        ticket = Ticket().save()
        assert marks() == {"ticket:created": [marks.offset(ticket.serial)]}

    def test_a_reference_can_be_the_key(self, ann: Member, marks: Marks) -> None:
        profile = Profile(owner=ann).save()
        profile.text = "hello"
        profile.save()
        Profile.objects.get().delete()
        assert marks() == {f"profile:{action}": [7] for action in ACTIONS}

    def test_a_document_whose_key_is_a_reference_is_replaced(
        self, ann: Member, marks: Marks
    ) -> None:
        Profile(owner=ann).save()
        marks.forget()
        Profile(owner=ann, text="hello").save()
        assert marks() == {"profile:updated": [7]}

    def test_a_key_that_cannot_be_an_id_does_not_cost_other_documents_their_marks(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        Anything.objects.insert([Anything(key={"a": 1}), Anything(key=3)], load_bulk=False)
        assert marks() == {"anything:created": [3]}
        assert "could not note a document of Anything" in caplog.text

    def test_a_key_that_cannot_be_an_id_does_not_cost_others_of_a_queryset_their_marks(
        self,
        database: Database[Any],
        marks: Marks,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(Anything, "__bitmapist_bulk__", True)
        database.anything.insert_many([{"_id": {"a": 1}}, {"_id": 3}])
        Anything.objects.delete()
        assert marks() == {"anything:deleted": [3]}
        assert "could not note a document of Anything as deleted" in caplog.text

    def test_a_key_that_cannot_be_marked_is_logged_and_the_document_saved(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        Numbered(id=-1).save()
        assert Numbered.objects.count() == 1
        assert marks() == {}
        assert "the id -1 is negative" in caplog.text


class Audited(MongoEngineBitmapistable, Document):
    meta: ClassVar = {"abstract": True}
    __bitmapist_events__ = ("created",)


class Order(Audited):
    number = IntField(primary_key=True)


class Animal(Document, MongoEngineBitmapistable):
    meta: ClassVar = {"allow_inheritance": True}
    number = IntField(primary_key=True)


class Dog(Animal):
    name = StringField()


class Puppy(Dog, MongoEngineBitmapistable):
    __bitmapist_name__ = "young_dog"


class Vehicle(Document):
    """Has not the mixin, as one of its subclasses has."""

    meta: ClassVar = {"allow_inheritance": True}
    number = IntField(primary_key=True)


class Car(Vehicle, MongoEngineBitmapistable):
    pass


class Boat(Vehicle):
    pass


class Common(MongoEngineBitmapistable):
    """Options that documents share."""

    __bitmapist_ids__ = "things"


class Thing(Common, Document):
    pass


class Loose(MongoEngineBitmapistable, DynamicDocument):
    __bitmapist_flags__ = ("open",)
    number = IntField(primary_key=True)


class TestClasses:
    def test_an_abstract_document_passes_its_options_on(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Order(number=3).save()
        Order.objects.get().delete()
        assert marks() == {"order:created": [3]}

    def test_a_queryset_of_the_base_marks_the_class_of_each_document(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Animal.objects.insert([Animal(number=1), Dog(number=2), Puppy(number=3)])
        assert Animal.objects.delete() == 3
        assert marks() == {
            f"{name}:{action}": [number]
            for number, name in enumerate(("animal", "dog", "young_dog"), 1)
            for action in ("created", "deleted")
        }

    def test_querysets_of_a_base_without_the_mixin_are_seen(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        Vehicle.objects.insert([Vehicle(number=1), Car(number=2), Boat(number=3)])
        vehicle = Vehicle(number=4).save()
        vehicle.delete()
        Vehicle.objects.delete()
        assert marks() == {"car:created": [2], "car:deleted": [2]}
        assert not [name for name in vars(vehicle) if "bitmapist" in name]
        assert caplog.text == ""

    def test_a_partly_refused_insert_by_a_base_without_the_mixin_is_seen(
        self, database: Database[Any], marks: Marks
    ) -> None:
        with pytest.raises(BulkWriteError):
            Vehicle.objects.insert([Vehicle(number=1), Car(number=2), Car(number=2)])
        assert marks() == {"car:created": [2]}

    def test_a_mixin_of_ones_own_can_hold_the_options(
        self, database: Database[Any], marks: Marks
    ) -> None:
        thing = Thing().save()
        assert marks() == {"thing:created": [marks.offset(str(thing.id), "things")]}

    def test_a_dynamic_document_can_have_flags_that_are_not_fields(
        self, database: Database[Any], marks: Marks
    ) -> None:
        loose = Loose(number=1).save()
        assert marks.flags() == {}
        loose.open = True
        loose.save()
        assert marks() == {"loose:created": [1], "loose:updated": [1]}
        assert marks.flags() == {"loose:open": [1]}
        Loose.objects.get().delete()
        assert marks.flags() == {}

    @pytest.mark.parametrize("base", [EmbeddedDocument, DynamicEmbeddedDocument])
    def test_an_embedded_document_is_a_type_error(self, base: type) -> None:
        with pytest.raises(TypeError, match="Part is an EmbeddedDocument, which has no key"):
            type("Part", (base, MongoEngineBitmapistable), {})

    @pytest.mark.parametrize(
        "options", [{"__bitmapist_id__": "owner"}, {"__bitmapist_flags__": ("owner",)}]
    )
    def test_an_option_that_names_no_attribute_is_a_type_error(self, options: Any) -> None:
        with pytest.raises(TypeError, match="Wrong has no attribute 'owner'"):
            type("Wrong", (MongoEngineBitmapistable, Document), options)


class Note(MongoEngineBitmapistable, Document):
    """Chooses its id in the way that a test sets."""

    __bitmapist_events__ = ("created",)

    reference = ReferenceField(Member)
    dbref = ReferenceField(Member, dbref=True)
    lazy = LazyReferenceField(Member)
    generic = GenericReferenceField()
    country = ReferenceField(Country)
    number = IntField()
    text = StringField()

    @property
    def reader(self) -> Any:
        return Member.objects.get(number=7)


class Poster(MongoEngineBitmapistable, Document):
    number = IntField(primary_key=True)
    text = StringField()

    def __bitmapist_id__(self) -> Any:
        return Member.objects.get(number=self.number)


class TestIds:
    @pytest.mark.parametrize("field", ["reference", "dbref", "lazy", "generic"])
    def test_a_reference_stands_for_the_key_of_what_it_refers_to(
        self, ann: Member, marks: Marks, monkeypatch: pytest.MonkeyPatch, field: str
    ) -> None:
        monkeypatch.setattr(Note, "__bitmapist_id__", field)
        monkeypatch.setattr(Note, "__bitmapist_events__", ("created", "deleted"))
        Note(**{field: ann}).save()
        Note.objects.get().delete()
        assert marks() == {"note:created": [7], "note:deleted": [7]}

    def test_a_reference_is_not_fetched(
        self, ann: Member, database: Database[Any], marks: Marks
    ) -> None:
        letter = Letter(author=ann).save()
        database.member.delete_many({})
        letter = Letter.objects.get()
        letter.text = "hello"
        letter.save()
        letter.delete()
        assert marks() == {f"letter:{action}": [7] for action in ACTIONS}

    @pytest.mark.parametrize("value", [Country(code="49"), DBRef("country", "49"), "49"])
    def test_a_reference_to_a_textual_key_is_mapped(
        self, database: Database[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch, value: Any
    ) -> None:
        monkeypatch.setattr(Note, "__bitmapist_id__", "country")
        note = Note()
        note.country = value
        note.save(validate=False)
        assert marks() == {"note:created": [marks.offset("49")]}

    def test_a_textual_field_is_mapped_and_a_numeric_one_is_not(
        self, database: Database[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Note, "__bitmapist_id__", "number")
        note = Note()
        note.number = "12"
        note.save()
        assert marks() == {"note:created": [12]}
        marks.forget()
        monkeypatch.setattr(Note, "__bitmapist_id__", "text")
        Note(text="12").save()
        assert marks() == {"note:created": [marks.offset("12")]}

    def test_a_property_can_choose_the_id(
        self, ann: Member, marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Note, "__bitmapist_id__", "reader")
        Note().save()
        assert marks() == {"note:created": [7]}

    @pytest.mark.parametrize("name", ["pk", "id"])
    def test_the_key_can_be_named_as_such(
        self, database: Database[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(Country, "__bitmapist_id__", name)
        Country(code="276").save()
        assert marks() == {"country:created": [marks.offset("276")]}

    def test_a_method_can_return_a_document(self, ann: Member, marks: Marks) -> None:
        Poster(number=7).save()
        assert marks() == {"poster:created": [7]}

    def test_a_method_can_return_a_reference_to_a_textual_key(
        self, database: Database[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Note, "__bitmapist_id__", lambda note: DBRef("country", "49"))
        Note().save()
        assert marks() == {"note:created": [marks.offset("49")]}

    def test_a_failing_method_is_logged_and_the_document_saved(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        poster = Poster(number=404).save()
        poster.text = "hello"
        poster.save()
        assert Poster.objects.get().text == "hello"
        poster.delete()
        assert Poster.objects.count() == 0
        assert marks() == {}
        assert "could not note a document of Poster as created" in caplog.text

    def test_an_option_that_was_spoilt_later_is_logged_and_the_document_saved(
        self,
        database: Database[Any],
        marks: Marks,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(Country, "__bitmapist_events__", None)
        Country(code="de").save()
        assert Country.objects.count() == 1
        assert marks() == {}
        assert "could not work out what a transaction has changed" in caplog.text

    def test_flask_login_marks_the_same_id(self, database: Database[Any], marks: Marks) -> None:
        country = Country(code="276").save()
        assert marks() == {"country:created": [marks.offset(str(user_id(country)))]}
        assert user_id(Member(number=7)) == 7
        assert user_id(Letter(author=7)) == 7


class Subscriber(MongoEngineBitmapistable, Document):
    __bitmapist_flags__ = ("paying", "grown_up", "extras")

    number = IntField(primary_key=True)
    paying = BooleanField(db_field="p")
    age = IntField(default=0)
    extras = DictField()
    name = StringField()

    @property
    def grown_up(self) -> bool:
        return bool(self.age >= 18)


class TestFlags:
    def test_a_flag_follows_a_field_that_the_database_calls_something_else(
        self, database: Database[Any], marks: Marks
    ) -> None:
        subscriber = Subscriber(number=1, paying=True).save()
        assert marks.flags() == {"subscriber:paying": [1]}
        subscriber.paying = False
        subscriber.save()
        assert marks.flags() == {}

    def test_a_flag_follows_a_property(self, database: Database[Any], marks: Marks) -> None:
        subscriber = Subscriber(number=1, age=17).save()
        assert marks.flags() == {}
        subscriber.age = 18
        subscriber.save()
        assert marks.flags() == {"subscriber:grown_up": [1]}

    def test_a_flag_that_was_not_loaded_is_left_alone(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Subscriber(number=1, paying=True).save()
        subscriber = Subscriber.objects.only("name").get()
        subscriber.name = "Ann"
        subscriber.save()
        assert marks.flags() == {"subscriber:paying": [1]}

    def test_a_flag_that_is_a_property_follows_what_is_stored(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Subscriber(number=1, age=18).save()
        partial = Subscriber.objects.only("name").get()
        stale = Subscriber.objects.get()
        partial.name = "Ann"
        partial.save()
        assert marks.flags() == {"subscriber:grown_up": [1]}
        database.subscriber.update_one({"_id": 1}, {"$set": {"age": 17}})
        stale.name = "Anna"
        stale.save()
        assert marks.flags() == {}

    def test_a_flag_that_cannot_be_read_costs_no_other_mark(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        subscriber = Subscriber(number=1).save()
        marks.forget()
        subscriber.paying = True
        with unreadable(database):
            subscriber.save()
        assert marks() == {"subscriber:updated": [1]}
        assert marks.flags() == {"subscriber:paying": [1]}
        assert "no reading" in caplog.text

    def test_a_flag_follows_what_is_inside_of_a_field(
        self, database: Database[Any], marks: Marks
    ) -> None:
        Subscriber(number=1, extras={"maps": 1}).save()
        subscriber = Subscriber.objects.get()
        assert marks.flags() == {"subscriber:extras": [1]}
        del subscriber.extras["maps"]
        subscriber.save()
        assert marks.flags() == {}

    def test_a_removed_flag_is_cleared(self, database: Database[Any], marks: Marks) -> None:
        subscriber = Subscriber(number=1, paying=True).save()
        del subscriber.paying
        subscriber.save()
        assert marks.flags() == {}


class TestUnseen:
    """What needs the opt-in, or `record`."""

    def test_updates_of_querysets_are_not_marked(self, ann: Member, marks: Marks) -> None:
        Member.objects.update(premium=True)
        Member.objects(number=7).update_one(set__name="Anna")
        Member.objects(number=7).modify(set__name="Anne")
        ann.update(premium=False)
        ann.modify(premium=True)
        assert type(Member.objects) is QuerySet
        assert marks() == {}

    def test_nullified_references_are_not_marked(self, ann: Member, marks: Marks) -> None:
        Member(number=8, friend=ann).save()
        marks.forget()
        ann.delete()
        assert Member.objects.get(number=8).friend is None
        assert marks() == {"member:deleted": [7]}


class TestSurroundings:
    def test_a_fault_in_our_reading_does_not_touch_the_document(
        self, database: Database[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with unreadable(database):
            Numbered(id=5).save()
            Numbered(id=6).save()
            Numbered.objects(id=6).delete()
            Letter(text="hello").save().delete()
        assert [document.id for document in Numbered.objects] == [5]
        assert not Letter.objects
        assert "no reading" in caplog.text

    def test_without_an_extension_documents_are_saved_all_the_same(
        self,
        database: Database[Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.current._Process.tracker", None)
        monkeypatch.setattr("flask_bitmapist.current._Process.apps", ())
        with caplog.at_level(logging.ERROR):
            Numbered(id=5).save()
        assert Numbered.objects.count() == 1
        assert "Flask-Bitmapist is not initialised" in caplog.text


def test_a_missing_mongoengine_says_what_to_install() -> None:
    script = """
import sys
sys.modules["mongoengine"] = None
try:
    import flask_bitmapist.adapters.mongoengine
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-W", "error", "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert 'pip install "flask-bitmapist[mongoengine]"' in output


class Livestock(QuerySet):
    """A queryset class of the model's own."""

    def named(self, name: str) -> Any:
        return self.filter(name=name)

    def _all(self) -> None:
        raise AssertionError("a name of the application's own")


class Cow(MongoEngineBitmapistable, Document):
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("sold",)
    meta: ClassVar = {"queryset_class": Livestock, "allow_inheritance": True}

    number = SequenceField(primary_key=True)
    name = StringField()
    sold = BooleanField(default=False)
    places = ListField(StringField())
    mother = ReferenceField("self", reverse_delete_rule=NULLIFY)
    friends = ListField(ReferenceField("self", reverse_delete_rule=PULL))

    @queryset_manager
    def unsold(cls, queryset: Livestock) -> Any:  # noqa: N805
        return queryset.filter(sold=False)


class Calf(Cow):
    pass


class Ox(Cow):
    __bitmapist_bulk__ = False


class Milk(MongoEngineBitmapistable, Document):
    """Needs its documents for neither the id nor a flag."""

    __bitmapist_bulk__ = True

    litres = IntField()


class Goat(MongoEngineBitmapistable, Document):
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("sold",)

    number = IntField(primary_key=True)
    sold = BooleanField()


class Sale(MongoEngineBitmapistable, Document):
    __bitmapist_bulk__ = True
    __bitmapist_id__ = "buyer"

    buyer = IntField()
    price = IntField()


@pytest.fixture
def herd(database: Database[Any], marks: Marks) -> Iterator[None]:
    """Three cows, of which a calf is the third; their marks forgotten."""
    Cow.objects.insert([Cow(number=1, name="a"), Cow(number=2, name="a"), Calf(number=3, name="b")])
    marks.forget()
    yield
    for cow in Cow.objects:
        assert not [name for name in vars(cow) if "bitmapist" in name]


@pytest.mark.usefixtures("herd")
class TestBulk:
    def test_an_update_marks_documents_that_no_longer_match_it(self, marks: Marks) -> None:
        Cow.objects(name="a").update(set__name="z", set__sold=True)
        assert marks() == {"cow:updated": [1, 2]}
        assert marks.flags() == {"cow:sold": [1, 2]}

    def test_each_document_is_marked_as_its_class(self, marks: Marks) -> None:
        Cow.objects.update(sold=True)
        assert marks() == {"cow:updated": [1, 2], "calf:updated": [3]}

    def test_an_update_is_one_batch(self, marks: Marks, bit_commands: Callable[[], int]) -> None:
        Cow.objects(number=1).update(sold=True)
        before = bit_commands()
        Cow.objects(name="a").update(name="z")
        assert bit_commands() - before == 4  # day, week, month and the flag

    def test_an_update_that_changes_nothing_marks_nothing(self, marks: Marks) -> None:
        Cow.objects.update(sold=False)
        Cow.objects(name="nobody").update(sold=True)
        Cow.objects.none().update(sold=True)
        assert marks() == {}

    def test_limit_and_fields_of_a_queryset_do_not_matter_to_an_update(self, marks: Marks) -> None:
        # As MongoEngine has it: the query alone counts.
        Cow.objects(name="a").skip(1).limit(1).scalar("name").as_pymongo().update(name="z")
        assert Cow.objects(name="z").count() == 2
        assert marks() == {"cow:updated": [1, 2]}

    @on_mongomock_too
    def test_update_one_marks_the_one_that_it_updated(self, marks: Marks) -> None:
        assert Cow.objects(name="a").update_one(name="z") == 1
        assert marks() == {"cow:updated": [Cow.objects.get(name="z").number]}

    @pytest.mark.parametrize("upsert", [False, True])
    def test_update_one_marks_another_when_the_chosen_one_is_changed_meanwhile(
        self, database: Database[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch, upsert: bool
    ) -> None:
        kind = type(database.cow)
        original = kind.update_one
        chosen: list[Any] = []

        def update_one(collection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            if not chosen:
                chosen.append(query["_id"])
                original(collection, {"_id": query["_id"]}, {"$set": {"name": "z"}})
            return original(collection, query, *args, **kwargs)

        monkeypatch.setattr(kind, "update_one", update_one)
        assert Cow.objects(name="a").update_one(upsert=upsert, sold=True) == 1
        sold = Cow.objects.get(sold=True).number
        assert {sold, *chosen} == {1, 2}
        assert marks() == {"cow:updated": [sold]}

    def test_update_one_can_use_the_position_of_a_match(self, marks: Marks) -> None:
        Cow.objects(number=2).update(places=["barn", "field"])
        marks.forget()
        Cow.objects(places="field").update_one(set__places__S="hill")
        assert Cow.objects.get(number=2).places == ["barn", "hill"]
        assert marks() == {"cow:updated": [2]}

    def test_update_one_of_nobody_marks_nothing(self, marks: Marks) -> None:
        assert Cow.objects(name="nobody").update_one(sold=True) == 0
        assert marks() == {}

    @on_mongomock_too
    def test_an_upsert_that_inserts_is_created(self, marks: Marks) -> None:
        Cow.objects(number=9).update_one(upsert=True, set__name="z", set__sold=True)
        assert marks() == {"cow:created": [9]}
        assert marks.flags() == {"cow:sold": [9]}
        marks.forget()
        Cow.objects(number=10).update(upsert=True, set__name="z")
        assert marks() == {"cow:created": [10]}

    @on_mongomock_too
    def test_an_upsert_that_updates_is_updated(self, marks: Marks) -> None:
        Cow.objects(number=1).update_one(upsert=True, set__name="z")
        Cow.objects(number=2).update(upsert=True, set__name="z")
        assert Cow.objects.count() == 3
        assert marks() == {"cow:updated": [1, 2]}

    def test_upsert_one_marks(self, marks: Marks) -> None:
        assert Cow.objects(number=1).upsert_one(name="z").name == "z"
        assert Cow.objects(number=9).upsert_one(name="z").number == 9
        assert marks() == {"cow:updated": [1], "cow:created": [9]}

    def test_an_upsert_writes_what_mongoengine_writes(self, database: Database[Any]) -> None:
        Cow.objects(number=3).update_one(upsert=True, name="z")
        stored = database.cow.find_one({"_id": 3})
        assert stored is not None
        assert stored["_cls"] == "Cow"  # it was a Calf

    def test_an_upsert_with_a_key_of_mongodbs_own_is_created(self, marks: Marks) -> None:
        Milk.objects(litres=3).update_one(upsert=True, set__litres=4)
        assert marks() == {"milk:created": [marks.offset(str(Milk.objects.get().id))]}

    def test_an_upsert_without_an_update_inserts_or_does_nothing(self, marks: Marks) -> None:
        assert Cow.objects(number=1).upsert_one().name == "a"
        assert Cow.objects(name="a").update_one(upsert=True) == 1  # of two
        assert marks() == {}
        assert Cow.objects(number=9).upsert_one().number == 9
        assert marks() == {"cow:created": [9]}

    @pytest.mark.skipif(mongoengine.VERSION < (0, 28), reason="MongoEngine < 0.28 has none")
    def test_an_update_can_filter_the_elements_of_arrays(self, marks: Marks) -> None:
        Cow.objects(number__in=[2, 3]).update(places=["barn", "field"])
        marks.forget()
        hill = {
            "array_filters": [{"place": "field"}],
            "__raw__": {"$set": {"places.$[place]": "hill"}},
        }
        Cow.objects(number=2).update_one(**hill)
        Cow.objects(number=3).update(**hill)
        assert [cow.places for cow in Cow.objects(number__gt=1)] == [["barn", "hill"]] * 2
        Cow.objects(number=3).modify(**hill, sold=True)
        assert marks() == {"cow:updated": [2], "calf:updated": [3]}

    def test_a_queryset_can_be_pickled(self) -> None:
        pickled = pickle.dumps(Cow.objects(name="a"))
        assert {cow.number for cow in pickle.loads(pickled)} == {1, 2}

    def test_updates_of_a_queryset_without_a_cache_mark(self, marks: Marks) -> None:
        assert Cow.objects(name="b").no_cache().update(name="z") == 1
        assert marks() == {"calf:updated": [3]}

    def test_updates_of_a_document_mark(self, marks: Marks) -> None:
        Cow.objects.get(number=1).update(name="z")
        assert Calf.objects.get(number=3).modify(sold=True)
        assert marks() == {"cow:updated": [1], "calf:updated": [3]}
        assert marks.flags() == {"calf:sold": [3]}

    def test_a_modify_of_a_document_whose_condition_fails_marks_nothing(self, marks: Marks) -> None:
        assert not Cow.objects.get(number=1).modify({"name": "z"}, sold=True)
        assert marks() == {}

    @pytest.mark.parametrize("new", [False, True])
    def test_modify_marks_the_one_that_it_updated(self, marks: Marks, new: bool) -> None:
        cow = Cow.objects(name="a").order_by("-number").modify(new=new, sold=True)
        assert (cow.number, cow.sold) == (2, new)
        assert marks() == {"cow:updated": [2]}
        assert marks.flags() == {"cow:sold": [2]}

    @on_mongomock_too
    def test_modify_can_remove(self, marks: Marks) -> None:
        Cow.objects(number=3).update(sold=True)
        marks.forget()
        assert Cow.objects(number=3).modify(remove=True).name == "b"
        assert marks() == {"calf:deleted": [3]}
        assert marks.flags() == {}

    def test_modify_of_nobody_marks_nothing(self, marks: Marks) -> None:
        assert Cow.objects(name="nobody").modify(sold=True) is None
        assert Cow.objects(name="nobody").modify(remove=True) is None
        assert Cow.objects.none().modify(upsert=True, sold=True) is None
        assert marks() == {}

    @on_mongomock_too
    @pytest.mark.parametrize("new", [False, True])
    def test_modify_can_upsert(self, marks: Marks, new: bool) -> None:
        Goat(number=1).save()
        marks.forget()
        inserted = Goat.objects(number=9).modify(upsert=True, new=new, sold=True)
        assert (inserted.number if new else inserted) == (9 if new else None)
        updated = Goat.objects(number=1).modify(upsert=True, new=new, sold=True)
        assert updated.number == 1
        assert marks() == {"goat:created": [9], "goat:updated": [1]}
        assert marks.flags() == {"goat:sold": [1, 9]}

    def test_it_does_not_matter_if_only_some_fields_are_loaded(self, marks: Marks) -> None:
        Cow.objects(number=1).only("name").modify(sold=True)
        assert marks.flags() == {"cow:sold": [1]}

    def test_the_chosen_id_is_read(self, marks: Marks) -> None:
        Sale(buyer=5, price=1).save()
        Sale(price=1).save()
        marks.forget()
        Sale.objects.update(inc__price=1)
        assert marks() == {"sale:updated": [5]}
        Sale.objects(buyer=5).modify(remove=True)
        assert marks() == {"sale:updated": [5], "sale:deleted": [5]}

    def test_a_document_whose_key_says_it_all_is_not_read_again(
        self, finds: list[Any], marks: Marks
    ) -> None:
        milk = Milk(litres=1).save()
        marks.forget()
        Milk.objects.update(litres=2)
        assert finds == [("milk", 0)]
        assert marks() == {"milk:updated": [marks.offset(str(milk.id))]}

    def test_update_one_reads_no_more_than_it_needs(self, finds: list[Any]) -> None:
        Milk.objects.insert([Milk(litres=1) for _ in range(3)], load_bulk=False)
        Milk.objects.update_one(litres=2)
        assert finds == [("milk", 2)]

    @pytest.mark.parametrize("database", ["mongomock"], indirect=True)  # it is the quicker one
    def test_more_documents_than_one_query_reads_are_marked(self, marks: Marks) -> None:
        Sale.objects.insert([Sale(buyer=number, price=1) for number in range(1_001)])
        marks.forget()
        Sale.objects.update(price=2)
        assert marks() == {"sale:updated": list(range(1_001))}

    def test_nullified_references_are_marked(self, marks: Marks) -> None:
        Cow.objects(number=3).update(mother=Cow.objects.get(number=1))
        marks.forget()
        Cow.objects.get(number=1).delete()
        assert marks() == {"cow:deleted": [1], "calf:updated": [3]}

    def test_pulled_references_are_marked(self, marks: Marks) -> None:
        first, second = Cow.objects(name="a").order_by("number")
        Cow.objects(number=3).update(friends=[first, second])
        marks.forget()
        first.delete()
        assert Cow.objects.get(number=3).friends == [second]
        assert marks() == {"cow:deleted": [1], "calf:updated": [3]}

    def test_the_models_own_queryset_class_and_managers_stay(self, marks: Marks) -> None:
        assert type(Cow.objects) is Livestock
        assert Cow.objects.named("b").update(sold=True) == 1
        assert Cow.unsold.update(name="z") == 2
        assert marks() == {"calf:updated": [3], "cow:updated": [1, 2]}

    def test_a_subclass_can_opt_out(self, finds: list[Any], marks: Marks) -> None:
        Ox(number=9, name="a").save()
        marks.forget()
        finds.clear()
        Ox.objects.update(sold=True)
        Ox.objects.modify(sold=False)
        assert finds == []
        assert marks() == {}
        Cow.objects(name="a").update(name="z")
        assert marks() == {"cow:updated": [1, 2]}
        assert isinstance(Cow.objects(number=9).modify(remove=True), Ox)
        assert marks() == {"cow:updated": [1, 2]}

    def test_an_unacknowledged_update_is_not_marked(self, marks: Marks) -> None:
        Cow.objects(number=1).update(write_concern={"w": 0}, name="z")
        Cow.objects(number=2).update_one(write_concern={"w": 0}, name="z")
        assert marks() == {}

    def test_an_update_in_another_collection_is_marked(self, marks: Marks) -> None:
        cow = Cow(number=1, name="there")
        cow.switch_collection("archive")
        cow.save()
        marks.forget()
        cow.update(sold=True)
        assert marks() == {"cow:updated": [1]}
        assert marks.flags() == {"cow:sold": [1]}

    def test_a_refused_update_raises_and_marks_nothing(self, marks: Marks) -> None:
        with pytest.raises(OperationError):
            Cow.objects.update()
        with pytest.raises(OperationError):
            Cow.objects.update(__raw__={"$inc": {"name": 1}})
        with pytest.raises(OperationError):
            Cow.objects(number=1).update_one(__raw__={"$inc": {"name": 1}})
        assert marks() == {}

    def test_a_fault_in_reading_again_does_not_touch_the_update(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        with unreadable(database, after=1):
            assert Cow.objects(number=1).update(sold=True) == 1
        with unreadable(database):
            assert Cow.objects(number=2).modify(new=True, sold=True).sold
        assert marks() == {}
        assert "no reading" in caplog.text

    def test_a_fault_in_our_reading_does_not_touch_the_update(
        self, database: Database[Any], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        with unreadable(database):
            assert Cow.objects(number=1).update(sold=True) == 1
            assert Cow.objects(number=2).update_one(sold=True) == 1
        assert Cow.objects(sold=True).count() == 2
        assert marks() == {}
        assert "no reading" in caplog.text

    def test_results_are_those_of_mongoengine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def results() -> list[Any]:
            Cow.objects.delete()
            Cow.objects.insert([Cow(number=number, name="a") for number in (1, 2)])
            full = Cow.objects.update(name="b", full_result=True)
            one = Cow.objects(number=9).update_one(upsert=True, name="b", full_result=True)
            return [
                Cow.objects.update(name="a"),
                Cow.objects(name="nobody").update(name="a"),
                Cow.objects.none().update(name="a"),
                Cow.objects.update_one(name="c"),
                Cow.objects(number=8).update(upsert=True, name="a"),
                (full.matched_count, full.modified_count, full.upserted_id),
                (one.matched_count, one.modified_count, one.upserted_id),
                Cow.objects(name="nobody").modify(name="a"),
                Cow.objects(number=1).modify(name="d").number,
            ]

        seen = results()
        monkeypatch.setattr(Cow, "__bitmapist_bulk__", False)
        assert seen == results()

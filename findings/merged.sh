#!/bin/sh
# MongoEngine 0.29.3 (on mongomock 4.3.0, PyMongo 4.15.5): what `|=` merges into a DictField or a
# MapField is not saved. The document has it, save() succeeds, and the database does not get it.
#
# Expected: `member.settings |= {"b": 2}` is saved, as `member.settings.update({"b": 2})` is, and
# as `member.visits += [2]` is, of a ListField.
# Seen, of settings, scores (a MapField) and visits:
#   update: had {'a': 1, 'b': 2}, {'a': 1, 'b': 2}, [1]; stored {'a': 1, 'b': 2}, {'a': 1, 'b': 2}, [1]
#   merge: had {'a': 1, 'b': 2}, {'a': 1, 'b': 2}, [1]; stored {'a': 1}, {'a': 1}, [1]
#   extend: had {'a': 1}, {'a': 1}, [1, 2]; stored {'a': 1}, {'a': 1}, [1, 2]
# Source: mongoengine/base/datastructures.py, BaseDict wraps the methods by which a dict is
# changed, but not __ior__, which dict has had since Python 3.9. The assignment that is part of
# `|=` does not help: BaseField.__set__ looks whether the new value differs from the old one, and
# both are one object by then. update() and setdefault() once lacked a wrapper, too
# (hmarr/mongoengine#412, MongoEngine/mongoengine#866).
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    mongoengine==0.29.3 mongomock==4.3.0 pymongo==4.15.5 || exit 2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import mongomock
from mongoengine import DictField, Document, IntField, ListField, MapField, connect

connect("findings", mongo_client_class=mongomock.MongoClient)


class Member(Document):
    settings = DictField()
    scores = MapField(IntField())
    visits = ListField(IntField())


def values(member):
    return f"{member.settings}, {member.scores}, {member.visits}"


def after(change):
    """What the document had when it was saved, and what is stored."""
    Member.drop_collection()
    Member(settings={"a": 1}, scores={"a": 1}, visits=[1]).save()
    member = Member.objects.get()
    change(member)
    member.save()
    return values(member), values(Member.objects.get())


def update(member):
    member.settings.update({"b": 2})
    member.scores.update({"b": 2})


def merge(member):
    member.settings |= {"b": 2}
    member.scores |= {"b": 2}


def extend(member):
    member.visits += [2]


ONE, BOTH = "{'a': 1}", "{'a': 1, 'b': 2}"
EXPECTED = {
    update: (f"{BOTH}, {BOTH}, [1]", f"{BOTH}, {BOTH}, [1]"),
    merge: (f"{BOTH}, {BOTH}, [1]", f"{ONE}, {ONE}, [1]"),
    extend: (f"{ONE}, {ONE}, [1, 2]", f"{ONE}, {ONE}, [1, 2]"),
}
as_seen = True
for change, expected in EXPECTED.items():
    had, stored = after(change)
    print(f"{change.__name__}: had {had}; stored {stored}")
    as_seen = as_seen and (had, stored) == expected
sys.exit(0 if as_seen else 1)
PYTHON

#!/bin/sh
# MongoEngine 0.29.3 (on mongomock 4.3.0, PyMongo 4.15.5): the order of a document's bases decides
# what list_indexes() finds.
#
# Expected: list_indexes() of a document "includes all the indexes from super- and sub-classes", as
# its docstring says, wherever a plain mixin stands among its bases.
# Seen: with the mixin as the last base, the indexes of subclasses are left out, so that
# compare_indexes() reports an index that the application declared as "extra".
# Source: mongoengine/document.py, Document.list_indexes(): the loop over cls.__subclasses__() tests
# `isinstance(base_cls, TopLevelDocumentMetaclass)`, where base_cls is what the loop over
# cls.__bases__ before it has left: the last base.
#
# Exits 0 if that is still so, 1 if it has changed, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    mongoengine==0.29.3 mongomock==4.3.0 pymongo==4.15.5 || exit 2
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import mongomock
from mongoengine import Document, StringField, connect

connect("findings", mongo_client_class=mongomock.MongoClient)


class Mixin:
    """Has nothing."""


class MixinFirst(Mixin, Document):
    author = StringField()
    meta = {"allow_inheritance": True}


class OfMixinFirst(MixinFirst):
    tag = StringField()
    meta = {"indexes": ["tag"]}


class MixinLast(Document, Mixin):
    author = StringField()
    meta = {"allow_inheritance": True}


class OfMixinLast(MixinLast):
    tag = StringField()
    meta = {"indexes": ["tag"]}


declared = [("_cls", 1), ("tag", 1)]
for model in (OfMixinFirst, OfMixinLast):
    model.ensure_indexes()
first, last = MixinFirst.list_indexes(), MixinLast.list_indexes()
print("mixin first:", first, MixinFirst.compare_indexes())
print("mixin last: ", last, MixinLast.compare_indexes())
as_found = declared in first and declared not in last
as_found = as_found and MixinLast.compare_indexes()["extra"] == [declared]
print("as found" if as_found else "CHANGED: both orders list the same indexes now, or neither does")
sys.exit(0 if as_found else 1)
PYTHON

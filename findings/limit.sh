#!/bin/sh
# MongoEngine 0.29.3 (on mongomock 4.3.0, PyMongo 4.15.5): `objects.limit(2).update(...)` updates all
# documents, while `objects.limit(2).delete()` deletes two.
#
# Expected: both keep to the limit, or both refuse it. A slice, `objects[:2]`, is the same.
# Seen:
#   limit(2).update(): 5 of 5 updated
#   [:2].update():     5 of 5 updated
#   limit(2).delete(): 2 of 5 deleted
# Source: mongoengine/queryset/base.py: update() passes the query alone to update_many(), which has
# no limit; delete() notices `queryset._skip or queryset._limit`, and deletes one by one then.
# Reported as MongoEngine/mongoengine#1612; update()'s docstring does not mention it.
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
from mongoengine import BooleanField, Document, IntField, connect

connect("findings", mongo_client_class=mongomock.MongoClient)


class Job(Document):
    number = IntField()
    taken = BooleanField(default=False)


for number in range(5):
    Job(number=number).save()
ordered = Job.objects.order_by("number")
ordered.limit(2).update(set__taken=True)
limited = Job.objects(taken=True).count()
Job.objects.update(set__taken=False)
ordered[:2].update(set__taken=True)
sliced = Job.objects(taken=True).count()
deleted = ordered.limit(2).delete()
print(f"limit(2).update(): {limited} of 5 updated")
print(f"[:2].update():     {sliced} of 5 updated")
print(f"limit(2).delete(): {deleted} of 5 deleted")
sys.exit(0 if (limited, sliced, deleted, Job.objects.count()) == (5, 5, 2, 3) else 1)
PYTHON
